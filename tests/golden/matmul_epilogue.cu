extern "C" __global__ void __launch_bounds__(256, 3) k_matmul_epilogue_0(float* __restrict__ p0, float* __restrict__ p1, float* __restrict__ p2, float* __restrict__ p3) {
  typedef dg_panel<float, float, 32, 32, 256, true> a_panel;
  const int a_size = 32 * a_panel::PITCH;
  typedef dg_panel<float, float, 32, 32, 256, true> b_panel;
  const int b_size = 32 * b_panel::PITCH;
  __shared__ __align__(16) float memory[4608];
  const dg_index m = 32, n = 24, k = 48;
  const bool a_whole = dg_aligned<4>(&p0[0]);
  const bool b_whole = dg_aligned<4>(&p1[0]);
  const dg_index down = (m + 31) / 32;
  const dg_index across = (n + 31) / 32;
  const dg_index tiles = 1 * down * across;
  for (dg_index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const dg_index matrix = tile / (down * across);
    const dg_index inside = tile - matrix * (down * across);
    const dg_index batch = matrix;
    const dg_index band = inside / (8 * across) * 8;
    const dg_index high = dg_min(8, down - band);
    const dg_index rest = inside - band * across;
    const dg_index row0 = (band + rest % high) * 32;
    const dg_index column0 = rest / high * 32;
    a_panel a;
    a.open(&p0[1536 * batch] + row0 * 48, m - row0, 48, 1);
    b_panel b;
    b.open(&p1[48 * batch] + column0 * 48, n - column0, 48, 1);
    float sum[2][2] = {};
    int stage = 0;
    dg_index at = 0;
    for (;; at += 32) {
      if (at < k) {
        a.fetch(48, 1, k - at, (float)0, a_whole);
        b.fetch(48, 1, k - at, -(float)0, b_whole);
      }
      if (at > 0) {
        dg_multiply<float, 2, 2, 16, 16, 32>(sum, memory + (stage ^ 1) * a_size, a_panel::PITCH, memory + 2 * a_size + (stage ^ 1) * b_size, b_panel::PITCH);
      }
      if (at >= k) break;
      a.put(memory + stage * a_size);
      b.put(memory + 2 * a_size + stage * b_size);
      stage ^= 1;
      __syncthreads();
    }
    const unsigned thread = dg_thread();
    const int column = thread % 32;
    const dg_index j = column0 + column;
    #pragma unroll 1
    for (int pass = 0; pass < 2; pass += 2) {
      __syncthreads();
      dg_spread<float, 2, 2, 16, 16, 2>(memory, sum, thread, pass);
      __syncthreads();
      if (j < n) {
        const float v1 = p3[j];
        #pragma unroll 1
        for (int row = thread / 32; row < 32; row += 32) {
          float total[4];
          #pragma unroll
          for (int u = 0; u < 4; ++u) {
            const int r = row + u * 8;
            const dg_index i = row0 + dg_lines<float, 2, 16>::line(r % 16, pass + r / 16);
            if (i < m) {
              total[u] = memory[(row + u * 8) * 32 + column];
            }
          }
          float out2[4];
          #pragma unroll
          for (int u = 0; u < 4; ++u) {
            const int r = row + u * 8;
            const dg_index i = row0 + dg_lines<float, 2, 16>::line(r % 16, pass + r / 16);
            if (i < m) {
              const float v3 = (float)total[u];
              const float v4 = v3 + v1;
              const bool v5 = v4 != v4;
              const bool v6 = 0x0p+0f < v4;
              const bool v7 = (bool)(v6 | v5);
              const float v8 = v7 ? v4 : 0x0p+0f;
              out2[u] = v8;
            }
          }
          #pragma unroll
          for (int u = 0; u < 4; ++u) {
            const int r = row + u * 8;
            const dg_index i = row0 + dg_lines<float, 2, 16>::line(r % 16, pass + r / 16);
            if (i < m) {
              p2[(24 * i + j)] = out2[u];
            }
          }
        }
      }
    }
    __syncthreads();
  }
}
