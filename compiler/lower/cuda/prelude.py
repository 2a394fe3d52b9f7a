"""What every CUDA text starts with: the index type, and the helpers `dg_*`.

Only this text has inline assembly.  Where it is compiled for the host (`DG_SHIM`), C++ stands in
for that.  Nothing is included: the compiler at run time needs no header files.
"""

from __future__ import annotations

_TYPES = """\
typedef {index} dg_index;
typedef unsigned {index} dg_unsigned;
typedef unsigned long long dg_word;
"""

_HELPERS = """\
#define DG_INLINE static __device__ __forceinline__

// sizes and places are never negative: unsigned division is the shorter one
DG_INLINE dg_index dg_div(dg_index a, dg_index b) { return (dg_unsigned)a / (dg_unsigned)b; }
DG_INLINE dg_index dg_mod(dg_index a, dg_index b) { return (dg_unsigned)a % (dg_unsigned)b; }
DG_INLINE dg_index dg_min(dg_index a, dg_index b) { return a < b ? a : b; }

// N neighbours in memory, as one access
template <class T, int N> struct __align__(sizeof(T) * N) dg_vec { T x[N]; };
template <int N, class T> DG_INLINE dg_vec<T, N> dg_load(const T* p) {
  return *reinterpret_cast<const dg_vec<T, N>*>(p);
}
template <int N, class T> DG_INLINE void dg_store(T* p, const dg_vec<T, N>& v) {
  *reinterpret_cast<dg_vec<T, N>*>(p) = v;
}
template <int N, class T> DG_INLINE bool dg_aligned(const T* p) {
  return (reinterpret_cast<dg_word>(p) & (sizeof(T) * N - 1)) == 0;
}

// N neighbours of which the first `left` are there (zeros for the others), one by one unless all
// are there, at an aligned address
template <int N, class T> DG_INLINE dg_vec<T, N> dg_read(const T* p, bool aligned, int left) {
  if (aligned && left >= N) return dg_load<N>(p);
  dg_vec<T, N> v;
#pragma unroll
  for (int k = 0; k < N; ++k) v.x[k] = k < left ? p[k] : T(0);
  return v;
}
template <int N, class T>
DG_INLINE void dg_write(T* p, const dg_vec<T, N>& v, bool aligned, int left) {
  if (aligned && left >= N) {
    dg_store<N>(p, v);
  } else {
#pragma unroll
    for (int k = 0; k < N; ++k)
      if (k < left) p[k] = v.x[k];
  }
}

// towards zero, to the nearest number there is where it is out of range, NaN to 0
template <class T, class F> DG_INLINE T dg_truncate(F x, F below, F above, T least, T most) {
  return x != x ? T(0) : x < below ? least : x >= above ? most : T(x);
}

DG_INLINE float dg_half_to_float(unsigned short bits) {
#ifdef DG_SHIM
  _Float16 x;
  __builtin_memcpy(&x, &bits, 2);
  return x;
#else
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
#endif
}
DG_INLINE unsigned short dg_float_to_half(float x) {
  unsigned short bits;
#ifdef DG_SHIM
  const _Float16 near = x;
  __builtin_memcpy(&bits, &near, 2);
#else
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#endif
  return bits;
}

// a check that failed: the error word keeps the least of all
DG_INLINE void dg_fail(dg_word* error, int code, long long value) {
  atomicMin(error, ((dg_word)value << 16) | (dg_word)(code + 1));
}
DG_INLINE bool dg_failed(const dg_word* error) {
  return *(const volatile dg_word*)error != ~0ull;
}
DG_INLINE bool dg_failed(const dg_word* error, int& code) {
  const dg_word word = *(const volatile dg_word*)error;
  code = (int)(word & 0xffff) - 1;
  return word != ~0ull;
}
"""


def prelude(wide: bool) -> str:
    """The head of a text; `wide` makes indices 64 bits."""
    return _TYPES.format(index="long long" if wide else "int") + _HELPERS
