"""CUDA texts whose results are known: what the tests of the shim and of the stand-in run."""

from __future__ import annotations

SCALE = """\
struct __align__(16) four { float x[4]; };

extern "C" __global__ void __launch_bounds__(256)
scale(const float* __restrict__ x, float* __restrict__ y, long long n, double by) {
  const float factor = (float)by;
  const int first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
  for (int i = first; i < n / 4; i += step) {
    four v = *reinterpret_cast<const four*>(x + 4 * i);
#pragma unroll
    for (int k = 0; k < 4; k++) v.x[k] *= factor;
    *reinterpret_cast<four*>(y + 4 * i) = v;
  }
  for (int i = (int)n / 4 * 4 + first; i < n; i += step) y[i] = x[i] * factor;
}
"""

# A block's sum of everything: shuffles within warps, shared memory between them.
TOTAL = """\
extern "C" __global__ void total(const float* __restrict__ x, float* __restrict__ y, long long n) {
  __shared__ float sums[32];
  __shared__ float whole;
  float v = 0.0f;
  for (int i = threadIdx.x; i < n; i += blockDim.x) v += x[i];
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.0f;
    for (int d = 16; d > 0; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
    if (threadIdx.x == 0) whole = v;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = whole;
}
"""

# C = A B with tiles of 16 x 16; the products of an element are added in the order of k.
MATMUL = """\
extern "C" __global__ void __launch_bounds__(256)
matmul(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
       long long m, long long n, long long k) {
  __shared__ float left[16][17], right[16][17];
  const int across = (int)(n + 15) / 16, x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int row = blockIdx.x / across * 16 + y, column = blockIdx.x % across * 16 + x;
  float sum = 0.0f;
  for (int from = 0; from < k; from += 16) {
    left[y][x] = row < m && from + x < k ? a[row * k + from + x] : 0.0f;
    right[y][x] = column < n && from + y < k ? b[(from + y) * n + column] : 0.0f;
    __syncthreads();
    for (int i = 0; i < 16 && from + i < k; i++) sum += left[y][i] * right[i][x];
    __syncthreads();
  }
  if (row < m && column < n) c[row * n + column] = sum;
}
"""

# A team of 8 lanes sums a row; the teams of a warp take their rows at their own pace.
TEAMS = """\
extern "C" __global__ void teams(const double* x, double* y, long long rows, long long n) {
  const int team = threadIdx.x / 8, lane = threadIdx.x % 8;
  const unsigned mask = 0xffu << (threadIdx.x % 32 / 8 * 8);
  const int per_block = blockDim.x / 8;
  for (int row = blockIdx.x * per_block + team; row < rows; row += gridDim.x * per_block) {
    double v = 0.0;
    for (int i = lane; i < n; i += 8) v += x[row * n + i];
    for (int d = 4; d > 0; d >>= 1) v += __shfl_down_sync(mask, v, d, 8);
    if (lane == 0) y[row] = v;
  }
}
"""

# Every warp reverses its 32 numbers through shared memory.
REVERSE = """\
extern "C" __global__ void reverse(const int* x, int* y) {
  __shared__ int kept[256];
  const int lane = threadIdx.x % 32, first = threadIdx.x - lane, at = blockIdx.x * blockDim.x;
  kept[first + lane] = x[at + first + lane];
  __syncwarp();
  y[at + first + lane] = kept[first + 31 - lane];
}
"""

ATOMICS = """\
extern "C" __global__ void atomics(unsigned long long* words, long long n) {
  for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicMin(words, (unsigned long long)(i * 7919 % n + 1));
    atomicAdd(words + 1, 1ull);
    unsigned long long seen = words[2], next;
    do {
      next = seen;
      seen = atomicCAS(words + 2, next, next ^ (unsigned long long)i);
    } while (seen != next);
  }
}
"""

PHILOX = """\
extern "C" __global__ void philox(const unsigned* in, unsigned* out, long long n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned c[4] = {in[6 * i], in[6 * i + 1], in[6 * i + 2], in[6 * i + 3]};
  unsigned k[2] = {in[6 * i + 4], in[6 * i + 5]};
  for (int round = 0; round < 10; round++) {
    const unsigned low = 0xd2511f53u * c[0], high = __umulhi(0xd2511f53u, c[0]);
    const unsigned low2 = 0xcd9e8d57u * c[2], high2 = __umulhi(0xcd9e8d57u, c[2]);
    c[0] = high2 ^ c[1] ^ k[0];
    c[1] = low2;
    c[2] = high ^ c[3] ^ k[1];
    c[3] = low;
    k[0] += 0x9e3779b9u;
    k[1] += 0xbb67ae85u;
  }
  for (int j = 0; j < 4; j++) out[4 * i + j] = c[j];
}
"""
