extern "C" __global__ void __launch_bounds__(256) k_sgd_step_0(float* p0, float* p1, float* p2, float* p3) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  const float v1 = p3[0];
  dg_index first = 0;
  if (dg_aligned<4>(p0) && dg_aligned<4>(p1) && dg_aligned<4>(p2)) {
    first = 200;
    for (dg_index at_2 = thread; at_2 < first / 4; at_2 += threads) {
      const dg_index m0_3 = at_2 * 4;
      const dg_vec<float, 4> x4 = dg_load<4>(p0 + m0_3);
      const dg_vec<float, 4> x5 = dg_load<4>(p1 + m0_3);
      const dg_vec<float, 4> x6 = dg_load<4>(p2 + m0_3);
      dg_vec<float, 4> y7;
      dg_vec<float, 4> y8;
      #pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float v9 = x4.x[k];
        const float v10 = x5.x[k];
        const float v11 = x6.x[k];
        const float v12 = v11 * v1;
        const float v13 = v10 * 0x1.ccccccp-1f;
        const float v14 = v13 + v12;
        const float v15 = v14 * 0x1.99999ap-4f;
        const float v16 = v9 - v15;
        y7.x[k] = v16;
        y8.x[k] = v14;
      }
      dg_store<4>(p0 + m0_3, y7);
      dg_store<4>(p1 + m0_3, y8);
    }
  }
  for (dg_index at_17 = first + thread; at_17 < 200; at_17 += threads) {
    const float v18 = p2[at_17];
    const float v19 = v18 * v1;
    const float v20 = p1[at_17];
    const float v21 = v20 * 0x1.ccccccp-1f;
    const float v22 = v21 + v19;
    const float v23 = v22 * 0x1.99999ap-4f;
    const float v24 = p0[at_17];
    const float v25 = v24 - v23;
    p0[at_17] = v25;
    p1[at_17] = v22;
  }
}

extern "C" __global__ void __launch_bounds__(256) k_sgd_step_1(float* p0) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  for (dg_index at_1 = thread; at_1 < 1; at_1 += threads) {
    p0[0] = 0x1p+0f;
  }
}
