extern "C" __global__ void __launch_bounds__(32) k_column_sum_0(float* __restrict__ p0, float* __restrict__ p1) {
  const dg_index thread = (dg_index)blockIdx.x * 32 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 32;
  for (dg_index at_1 = thread; at_1 < 40; at_1 += threads) {
    float c2 = (-0x0p+0f);
    #pragma unroll 8
    for (dg_index r_3 = 0; r_3 < 60; ++r_3) {
      const float v4 = p0[(at_1 + 40 * r_3)];
      const float v5 = c2 + v4;
      c2 = v5;
    }
    p1[at_1] = c2;
  }
}
