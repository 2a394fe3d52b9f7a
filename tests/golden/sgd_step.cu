extern "C" __global__ void __launch_bounds__(256) k_sgd_step_0(float* p0, float* p1, float* p2) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  dg_index first = 0;
  if (dg_aligned<4>(p0) && dg_aligned<4>(p1) && dg_aligned<4>(p2)) {
    first = 200;
    for (dg_index at_1 = thread; at_1 < first / 4; at_1 += threads) {
      const dg_index m0_2 = at_1 * 4;
      const dg_vec<float, 4> x3 = dg_load<4>(p0 + m0_2);
      const dg_vec<float, 4> x4 = dg_load<4>(p1 + m0_2);
      const dg_vec<float, 4> x5 = dg_load<4>(p2 + m0_2);
      dg_vec<float, 4> y6;
      dg_vec<float, 4> y7;
      #pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float v8 = x3.x[k];
        const float v9 = x4.x[k];
        const float v10 = x5.x[k];
        const float v11 = v9 * 0x1.ccccccp-1f;
        const float v12 = v11 + v10;
        const float v13 = v12 * 0x1.99999ap-4f;
        const float v14 = v8 - v13;
        y6.x[k] = v14;
        y7.x[k] = v12;
      }
      dg_store<4>(p0 + m0_2, y6);
      dg_store<4>(p1 + m0_2, y7);
    }
  }
  for (dg_index at_15 = first + thread; at_15 < 200; at_15 += threads) {
    const float v16 = p2[at_15];
    const float v17 = p1[at_15];
    const float v18 = v17 * 0x1.ccccccp-1f;
    const float v19 = v18 + v16;
    const float v20 = v19 * 0x1.99999ap-4f;
    const float v21 = p0[at_15];
    const float v22 = v21 - v20;
    p0[at_15] = v22;
    p1[at_15] = v19;
  }
}
