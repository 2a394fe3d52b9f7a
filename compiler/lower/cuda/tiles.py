"""The functions that matrix products in CUDA C are made of: panels, and tiles of registers.

A block of threads computes a tile of C.  It brings the rows of A and the columns of B that the
tile needs to shared memory, some steps along K at a time: a panel.  Each thread keeps a tile of
sums in registers, and reads for each step a few rows and columns from the panels.
"""

from __future__ import annotations

from dualgrad.compiler.kernel.ir import K_BLOCK

_TEXT = """\
DG_INLINE float dg_add_product(float x, float y, float sum) { return fmaf(x, y, sum); }
DG_INLINE double dg_add_product(double x, double y, double sum) { return fma(x, y, sum); }
DG_INLINE unsigned dg_add_product(unsigned x, unsigned y, unsigned sum) { return x * y + sum; }
DG_INLINE dg_word dg_add_product(dg_word x, dg_word y, dg_word sum) { return x * y + sum; }

// The same number, not to be known before this place: what is computed from it here must not take
// registers from the multiplication.
DG_INLINE unsigned dg_later(unsigned x) {
#ifndef DG_SHIM
  asm volatile("" : "+r"(x));
#endif
  return x;
}
DG_INLINE int dg_later(int x) { return (int)dg_later((unsigned)x); }
DG_INLINE long long dg_later(long long x) {
#ifndef DG_SHIM
  asm volatile("" : "+l"(x));
#endif
  return x;
}

// How a sum over k is cut: blocks of equal length, but for the last.
DG_INLINE dg_index dg_blocks(dg_index k) { return k > K_BLOCK ? (k + (K_BLOCK - 1)) / K_BLOCK : 1; }
DG_INLINE dg_index dg_length(dg_index k) {
  const dg_index blocks = dg_blocks(k);
  return (k + blocks - 1) / blocks;
}

// Tiles of M by N that cover matrices of m by n.
template <int M, int N> DG_INLINE dg_index dg_tiles(dg_index m, dg_index n) {
  return ((m + (M - 1)) / M) * ((n + (N - 1)) / N);
}
// Where one begins: bands of 8 rows of tiles, and in them one column after another.
template <int M, int N> struct dg_place {
  dg_index matrix, row, column;
  __device__ __forceinline__ dg_place(dg_index number, dg_index m, dg_index n) {
    const dg_index down = (m + (M - 1)) / M, across = (n + (N - 1)) / N;
    matrix = number / (down * across);
    number -= matrix * (down * across);
    const dg_index band = number / (8 * across) * 8;
    const dg_index high = dg_min(8, down - band);
    number -= band * across;
    row = (band + number % high) * M;
    column = number / high * N;
  }
};

// SIZE lines (rows of A, columns of B) by DEPTH steps along K, on the way from memory, where they
// are of type T, to shared memory, where element (line, k) is at k * PITCH + line.  With ALONG_K a
// thread's V neighbours follow each other along K, else they belong to V lines.
template <class T, class S, int SIZE, int DEPTH, int THREADS, bool ALONG_K> struct dg_panel {
  static constexpr int V = 16 / sizeof(S), PITCH = SIZE + V;
  static constexpr int GROUPS = (ALONG_K ? DEPTH : SIZE) / V;
  static constexpr int COUNT = SIZE * DEPTH / V / THREADS;
  static_assert(COUNT * V * THREADS == SIZE * DEPTH, "every thread brings as much");

  S held[COUNT][V];
  const T* next[COUNT];  // where a thread goes on
  int lines[COUNT];      // of its lines, so many exist
  bool whole[COUNT];     // whether V neighbours can be read as one

  // first line and step of a thread's n-th neighbours
  static __device__ __forceinline__ int line(unsigned thread, int n) {
    const unsigned id = thread + n * THREADS;
    return ALONG_K ? id / GROUPS : id % GROUPS * V;
  }
  static __device__ __forceinline__ int depth(unsigned thread, int n) {
    const unsigned id = thread + n * THREADS;
    return ALONG_K ? id % GROUPS * V : id / GROUPS;
  }

  // The panel starts at `from` and has so many lines; those beyond are never read.  `vectors`:
  // V neighbours are together in memory, and aligned.
  __device__ __forceinline__ void open(const T* from, dg_index all, dg_index next_line,
                                       dg_index next_k, bool vectors) {
    const unsigned thread = dg_later(threadIdx.x);
#pragma unroll
    for (int n = 0; n < COUNT; ++n) {
      const int l = line(thread, n);
      lines[n] = dg_min(all - l, V);
      whole[n] = vectors && lines[n] >= (ALONG_K ? 1 : V);
      next[n] = from + (dg_min(l, all - 1) * next_line + depth(thread, n) * next_k);
    }
  }

  // From memory, where `left` steps are left; `none` stands in for those beyond.
  __device__ __forceinline__ void fetch(dg_index next_line, dg_index next_k, dg_index left,
                                        S none) {
#pragma unroll
    for (int n = 0; n < COUNT; ++n) {
      if (whole[n] && DEPTH <= left) {
        const dg_vec<T, V> all = dg_load<V>(next[n]);
#pragma unroll
        for (int v = 0; v < V; ++v) held[n][v] = S(all.x[v]);
      } else {
        const int d = depth(dg_later(threadIdx.x), n);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const bool there = ALONG_K ? lines[n] > 0 && d + v < left : v < lines[n] && d < left;
          held[n][v] = there ? S(next[n][v * (ALONG_K ? next_k : next_line)]) : none;
        }
      }
    }
    skip(DEPTH * next_k);
  }
  __device__ __forceinline__ void skip(dg_index elements) {
#pragma unroll
    for (int n = 0; n < COUNT; ++n) next[n] += elements;
  }

  __device__ __forceinline__ void put(S* panel) const {
#pragma unroll
    for (int n = 0; n < COUNT; ++n) {
      S* const at = panel + depth(threadIdx.x, n) * PITCH + line(threadIdx.x, n);
      if (ALONG_K) {
#pragma unroll
        for (int v = 0; v < V; ++v) at[v * PITCH] = held[n][v];
      } else {
        dg_vec<S, V> near;
#pragma unroll
        for (int v = 0; v < V; ++v) near.x[v] = held[n][v];
        dg_store<V>(at, near);
      }
    }
  }
};

// A thread's N of the lines of a panel: groups of V neighbours, `THREADS` threads side by side.
template <class S, int N, int THREADS> struct dg_lines {
  static constexpr int V = N < 16 / (int)sizeof(S) ? N : 16 / (int)sizeof(S);

  // which line of the panel is number n of a thread's
  static __device__ __forceinline__ int line(int thread, int n) {
    return (n / V * THREADS + thread) * V + n % V;
  }
  static __device__ __forceinline__ void read(S (&x)[N], const S* step, int thread) {
#pragma unroll
    for (int n = 0; n < N; n += V) {
      const dg_vec<S, V> near = dg_load<V>(step + line(thread, n));
#pragma unroll
      for (int v = 0; v < V; ++v) x[n + v] = near.x[v];
    }
  }
};

// Threads of a tile of C: a warp is 4 threads high and 8 wide.
template <int ACROSS> DG_INLINE int dg_down(unsigned thread) {
  return thread / (4 * ACROSS) * 4 + thread / 8 % 4;
}
template <int ACROSS> DG_INLINE int dg_across(unsigned thread) {
  return thread / 32 % (ACROSS / 8) * 8 + thread % 8;
}

// The sums of a thread's H rows and W columns, DEPTH steps further.
template <class S, int H, int W, int DOWN, int ACROSS, int DEPTH>
DG_INLINE void dg_multiply(S (&sum)[H][W], const S* a, int pitch_a, const S* b, int pitch_b) {
#pragma unroll
  for (int k = 0; k < DEPTH; ++k) {
    S x[H], y[W];
    dg_lines<S, H, DOWN>::read(x, a + k * pitch_a, dg_down<ACROSS>(threadIdx.x));
    dg_lines<S, W, ACROSS>::read(y, b + k * pitch_b, dg_across<ACROSS>(threadIdx.x));
#pragma unroll
    for (int i = 0; i < H; ++i) {
#pragma unroll
      for (int j = 0; j < W; ++j) sum[i][j] = dg_add_product(x[i], y[j], sum[i][j]);
    }
  }
}

// H rows of sums of all threads (numbers first, first + 1, ... of each), as COUNT * DOWN rows of
// the tile in shared memory.
template <class S, int H, int W, int DOWN, int ACROSS, int COUNT>
DG_INLINE void dg_spread(S* slab, const S (&sum)[H][W], unsigned thread, int first) {
  typedef dg_lines<S, W, ACROSS> columns;
  constexpr int V = columns::V;
#pragma unroll
  for (int i = 0; i < H; ++i) {
    if (i / COUNT * COUNT == first) {
      S* const row = slab + (i % COUNT * DOWN + dg_down<ACROSS>(thread)) * (W * ACROSS);
#pragma unroll
      for (int j = 0; j < W; j += V) {
        dg_vec<S, V> near;
#pragma unroll
        for (int v = 0; v < V; ++v) near.x[v] = sum[i][j + v];
        dg_store<V>(row + columns::line(dg_across<ACROSS>(thread), j), near);
      }
    }
  }
}
"""

TILES = _TEXT.replace("K_BLOCK", str(K_BLOCK))
