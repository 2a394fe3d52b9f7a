extern "C" __global__ void __launch_bounds__(256) k_transposed_copy_0(float* __restrict__ p0, float* __restrict__ p1) {
  __shared__ float tile_1[32][33];
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  for (dg_index at_2 = blockIdx.x; at_2 < 6; at_2 += gridDim.x) {
    const dg_index m1_3 = dg_mod(at_2, 2);
    const dg_index rest_4 = dg_div(at_2, 2);
    #pragma unroll
    for (int k = 0; k < 32; k += 8) {
      const dg_index m1_5 = m1_3 * 32 + row + k;
      const dg_index m0_6 = rest_4 * 32 + lane;
      if (m1_5 < 50 && m0_6 < 70) {
        tile_1[row + k][lane] = p1[(m0_6 + 70 * m1_5)];
      }
    }
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < 32; k += 8) {
      const dg_index m0_7 = rest_4 * 32 + row + k;
      const dg_index m1_8 = m1_3 * 32 + lane;
      if (m0_7 < 70 && m1_8 < 50) {
        const float v9 = tile_1[lane][row + k];
        p0[(50 * m0_7 + m1_8)] = v9;
      }
    }
    __syncthreads();
  }
}
