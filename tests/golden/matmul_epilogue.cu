extern "C" __global__ void __launch_bounds__(256, 3) k_matmul_epilogue_0(float* __restrict__ p0, float* __restrict__ p1, float* __restrict__ p2, float* __restrict__ p3) {
  typedef dg_panel<float, float, 32, 32, 256, true> a_panel;
  const int a_size = 32 * a_panel::PITCH;
  typedef dg_panel<float, float, 32, 32, 256, true> b_panel;
  const int b_size = 32 * b_panel::PITCH;
  __shared__ __align__(16) float memory[4608];
  const dg_index tiles = 1 * dg_tiles<32, 32>(32, 24);
  for (dg_index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    a_panel a;
    b_panel b;
    {
      const dg_index m = 32, n = 24;
      const dg_place<32, 32> place(dg_later(tile), m, n);
      const dg_index batch = place.matrix;
      a.open(&p0[1536 * batch] + place.row * 48, m - place.row, 48, 1, dg_aligned<4>(&p0[0]));
      b.open(&p1[1152 * batch] + place.column * 48, n - place.column, 48, 1, dg_aligned<4>(&p1[0]));
    }
    float sum[2][2] = {};
    int stage = 0;
    dg_index at = 0;
    for (;; at += 32) {
      if (at < 48) {
        a.fetch(48, 1, 48 - at, (float)0);
        b.fetch(48, 1, 48 - at, -(float)0);
      }
      if (at > 0) {
        dg_multiply<float, 2, 2, 16, 16, 32>(sum, memory + (stage ^ 1) * a_size, a_panel::PITCH, memory + 2 * a_size + (stage ^ 1) * b_size, b_panel::PITCH);
      }
      if (at >= 48) break;
      a.put(memory + stage * a_size);
      b.put(memory + 2 * a_size + stage * b_size);
      stage ^= 1;
      __syncthreads();
    }
    {
      const dg_index m = 32, n = 24;
      const dg_place<32, 32> place(dg_later(tile), m, n);
      const dg_index batch = place.matrix;
      const unsigned thread = dg_later(threadIdx.x);
      const int column = thread % 32;
      const dg_index j = place.column + column;
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
              const dg_index i = place.row + dg_lines<float, 2, 16>::line(r % 16, pass + r / 16);
              if (i < m) {
                total[u] = memory[(row + u * 8) * 32 + column];
              }
            }
            float out2[4];
            #pragma unroll
            for (int u = 0; u < 4; ++u) {
              const int r = row + u * 8;
              const dg_index i = place.row + dg_lines<float, 2, 16>::line(r % 16, pass + r / 16);
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
              const dg_index i = place.row + dg_lines<float, 2, 16>::line(r % 16, pass + r / 16);
              if (i < m) {
                p2[(24 * i + j)] = out2[u];
              }
            }
          }
        }
      }
    }
    __syncthreads();
  }
}
