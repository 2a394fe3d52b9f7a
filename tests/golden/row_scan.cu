extern "C" __global__ void __launch_bounds__(32) k_row_scan_0(float* __restrict__ p0, float* __restrict__ p1) {
  const dg_index thread = (dg_index)blockIdx.x * 32 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 32;
  for (dg_index at_1 = thread; at_1 < 60; at_1 += threads) {
    double c2 = (-0x0p+0);
    #pragma unroll 8
    for (dg_index t_3 = 0; t_3 < 40; ++t_3) {
      const float v4 = p0[(40 * at_1 + -1 * t_3)];
      const float v5 = v4 * 0x1p+1f;
      const double v6 = (double)v5;
      const double v7 = c2 + v6;
      const float v8 = (float)v7;
      p1[(40 * at_1 + -1 * t_3)] = v8;
      c2 = v7;
    }
  }
}
