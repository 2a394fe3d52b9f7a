extern "C" __global__ void __launch_bounds__(32) k_column_scans_0(float* __restrict__ p0, float* __restrict__ p1, long long* __restrict__ p2) {
  const dg_index thread = (dg_index)blockIdx.x * 32 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 32;
  for (dg_index at_1 = thread; at_1 < 40; at_1 += threads) {
    float c2 = __int_as_float(0xff800000);
    float c3 = __int_as_float(0xff800000);
    long long c4 = 0ll;
    #pragma unroll 8
    for (dg_index t_5 = 0; t_5 < 60; ++t_5) {
      const float v6 = p0[(at_1 + 40 * t_5)];
      const bool v7 = v6 != v6;
      const bool v8 = v6 >= c2;
      const bool v9 = (bool)(v8 | v7);
      const float v10 = v9 ? v6 : c2;
      const bool v11 = v6 >= c3;
      const bool v12 = (bool)(v11 | v7);
      const float v13 = v12 ? v6 : c3;
      const long long v14 = t_5;
      const long long v15 = v12 ? v14 : c4;
      p1[(at_1 + 40 * t_5)] = v10;
      p2[(at_1 + 40 * t_5)] = v15;
      c2 = v10;
      c3 = v13;
      c4 = v15;
    }
  }
}
