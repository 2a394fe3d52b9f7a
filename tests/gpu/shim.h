// The part of CUDA C that generated kernels use, for a C++ compiler, and what a compiled text and the
// runtime (shim_runtime.cpp) know of each other.
//
// A text is compiled unchanged in an unnamed namespace behind this header, with `DG_SHIM` defined.
// There are no other headers, because reading them would cost more than compiling a kernel.
#pragma once

// ---- shared by texts and the runtime ----------------------------------------------------------------

struct DgIndex {
    unsigned x;
};

struct DgParameter {
    char kind;      // 'p' pointer, 'i' signed or 'u' unsigned integer, 'd' floating point
    unsigned size;  // bytes of the element that a pointer points to, else of the parameter
};

struct DgKernel {
    const char* name;
    void (*run)(const unsigned long long* arguments);  // runs one thread
    const char* names;  // of the parameters, with commas between them
    const DgParameter* parameters;
    unsigned parameter_count;
    unsigned bound;      // the most threads that __launch_bounds__ allows, 0 without it
    char* shared_begin;  // the kernel's own __shared__ variables
    char* shared_end;
};

struct DgText {
    // Set by the runtime: the thread that runs now, and the calls that may suspend it.
    DgIndex thread, block, threads, blocks;
    void (*sync_threads)(int line);
    void (*sync_warp)(int line, unsigned mask);
    unsigned long long (*shuffle)(
        const char* call, int line, unsigned mask, int width, int source, unsigned long long value);
    // Set by the text.
    const DgKernel* kernels;
    unsigned kernel_count;
    char* shared_begin;  // the __shared__ variables of functions that are no kernels
    char* shared_end;
};

#ifdef DG_SHIM
// ---- the language -----------------------------------------------------------------------------------

static DgText dg_text;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// DG_OWNER names the kernel around: each has a section of its own, which is poisoned before a block.
#define __shared__ static __attribute__((section("dg_shared_" DG_OWNER)))

#define threadIdx dg_text.thread
#define blockIdx dg_text.block
#define blockDim dg_text.threads
#define gridDim dg_text.blocks
#define warpSize 32

using size_t = decltype(sizeof(0));

#define DG_VECTORS(T, name, bytes)                   \
    struct __align__(2 * bytes) name##2 { T x, y; }; \
    struct __align__(4 * bytes > 16 ? 16 : 4 * bytes) name##4 { T x, y, z, w; };
DG_VECTORS(float, float, 4)
DG_VECTORS(int, int, 4)
DG_VECTORS(unsigned, uint, 4)
DG_VECTORS(double, double, 8)
DG_VECTORS(long long, longlong, 8)
#undef DG_VECTORS

// ---- barriers and shuffles --------------------------------------------------------------------------

#define __syncthreads() dg_text.sync_threads(__LINE__)
#define __syncwarp(...) dg_sync_warp(__LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_sync(...) dg_shfl_sync(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) dg_shfl_up_sync(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) dg_shfl_down_sync(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) dg_shfl_xor_sync(__LINE__, __VA_ARGS__)

static inline void dg_sync_warp(int line, unsigned mask = 0xffffffffu) { dg_text.sync_warp(line, mask); }

template <class T>
static inline T dg_exchange(const char* call, int line, unsigned mask, T value, int width, int source) {
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = dg_text.shuffle(call, line, mask, width, source, bits);
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}

// The lane to read from, by the rules of PTX's shfl: one beyond the segment of `width` lanes is the own.
static inline int dg_own_if(bool outside, int lane, int source) { return outside ? lane : source; }
#define DG_SHUFFLES(T)                                                                              \
    static inline T dg_shfl_sync(int line, unsigned mask, T value, int from, int width = 32) {      \
        int first = (threadIdx.x & 31) & -width;                                                    \
        return dg_exchange("__shfl_sync", line, mask, value, width, first + (from & (width - 1)));  \
    }                                                                                               \
    static inline T dg_shfl_up_sync(int line, unsigned mask, T value, unsigned by, int width = 32) { \
        int lane = threadIdx.x & 31, source = lane - (int)by;                                       \
        source = dg_own_if(source < (lane & -width), lane, source);                                 \
        return dg_exchange("__shfl_up_sync", line, mask, value, width, source);                     \
    }                                                                                               \
    static inline T dg_shfl_down_sync(int line, unsigned mask, T value, unsigned by, int width = 32) { \
        int lane = threadIdx.x & 31, source = lane + (int)by;                                       \
        source = dg_own_if(source >= (lane & -width) + width, lane, source);                        \
        return dg_exchange("__shfl_down_sync", line, mask, value, width, source);                   \
    }                                                                                               \
    static inline T dg_shfl_xor_sync(int line, unsigned mask, T value, int with, int width = 32) {  \
        int lane = threadIdx.x & 31, source = lane ^ with;                                          \
        source = dg_own_if(source >= (lane & -width) + width, lane, source);                        \
        return dg_exchange("__shfl_xor_sync", line, mask, value, width, source);                    \
    }
DG_SHUFFLES(int)
DG_SHUFFLES(unsigned)
DG_SHUFFLES(long long)
DG_SHUFFLES(unsigned long long)
DG_SHUFFLES(float)
DG_SHUFFLES(double)
#undef DG_SHUFFLES

// ---- atomics: all threads share one thread of the CPU -----------------------------------------------

template <class T>
static inline T dg_replace(T* place, T value) {
    T old = *place;
    *place = value;
    return old;
}
static inline unsigned long long atomicMin(unsigned long long* place, unsigned long long value) {
    return dg_replace(place, value < *place ? value : *place);
}
static inline unsigned long long atomicMax(unsigned long long* place, unsigned long long value) {
    return dg_replace(place, value > *place ? value : *place);
}
static inline unsigned long long atomicAdd(unsigned long long* place, unsigned long long value) {
    return dg_replace(place, *place + value);
}
static inline unsigned long long atomicCAS(
    unsigned long long* place, unsigned long long expected, unsigned long long value) {
    return dg_replace(place, *place == expected ? value : *place);
}

// ---- numbers ----------------------------------------------------------------------------------------

extern "C" {
float fmaf(float, float, float) noexcept;
double fma(double, double, double) noexcept;
float sqrtf(float) noexcept;
double sqrt(double) noexcept;
float floorf(float) noexcept;
double floor(double) noexcept;
float ceilf(float) noexcept;
double ceil(double) noexcept;
float truncf(float) noexcept;
double trunc(double) noexcept;
float rintf(float) noexcept;
double rint(double) noexcept;
float copysignf(float, float) noexcept;
double copysign(double, double) noexcept;
float fabsf(float) noexcept;
double fabs(double) noexcept;
}

template <class To, class From>
static inline To dg_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To result;
    __builtin_memcpy(&result, &value, sizeof(To));
    return result;
}
static inline float __int_as_float(int bits) { return dg_bits<float>(bits); }
static inline float __uint_as_float(unsigned bits) { return dg_bits<float>(bits); }
static inline int __float_as_int(float value) { return dg_bits<int>(value); }
static inline unsigned __float_as_uint(float value) { return dg_bits<unsigned>(value); }
static inline double __longlong_as_double(long long bits) { return dg_bits<double>(bits); }
static inline long long __double_as_longlong(double value) { return dg_bits<long long>(value); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
static inline int __clz(int value) { return value ? __builtin_clz(value) : 32; }
static inline int __clzll(long long value) { return value ? __builtin_clzll(value) : 64; }
static inline int __popc(unsigned value) { return __builtin_popcount(value); }
static inline int __ffs(int value) { return __builtin_ffs(value); }

// ---- the table of kernels ---------------------------------------------------------------------------

template <class T>
struct DgKind {
    static constexpr DgParameter value{T(-1) < T(0) ? (T(0.5) != T(0) ? 'd' : 'i') : 'u', sizeof(T)};
};
template <class T>
struct DgKind<T*> {
    static constexpr DgParameter value{'p', sizeof(T)};
};

template <class... T>
struct DgCall {
    DgCall(void (*kernel)(T...), T... arguments) { kernel(arguments...); }
};

template <class T>
static inline T dg_take(const unsigned long long*& slot) {
    T value;
    __builtin_memcpy(&value, slot++, sizeof(T));
    return value;
}

template <class... T>
static void dg_run(void (*kernel)(T...), const unsigned long long* slots) {
    static_assert(((sizeof(T) == 8) && ...), "every parameter of a kernel takes 8 bytes");
    DgCall<T...>{kernel, dg_take<T>(slots)...};  // braces: from left to right
}

template <class... T>
struct DgSignature {
    static constexpr unsigned count = sizeof...(T);
    static constexpr DgParameter parameters[] = {DgKind<T>::value..., {0, 0}};
};
template <class... T>
static DgSignature<T...> dg_signature(void (*)(T...));
#endif
