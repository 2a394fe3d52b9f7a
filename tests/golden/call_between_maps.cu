extern "C" __global__ void __launch_bounds__(256) k_call_between_maps_0(float* __restrict__ p0, float* __restrict__ p1) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  dg_index first = 0;
  if (dg_aligned<4>(p1) && dg_aligned<4>(p0)) {
    first = 8;
    for (dg_index at_1 = thread; at_1 < first / 4; at_1 += threads) {
      const dg_index m0_2 = at_1 * 4;
      const dg_vec<float, 4> x3 = dg_load<4>(p1 + m0_2);
      dg_vec<float, 4> y4;
      #pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float v5 = x3.x[k];
        const float v6 = v5 + 0x1p+0f;
        y4.x[k] = v6;
      }
      dg_store<4>(p0 + m0_2, y4);
    }
  }
  for (dg_index at_7 = first + thread; at_7 < 9; at_7 += threads) {
    const float v8 = p1[at_7];
    const float v9 = v8 + 0x1p+0f;
    p0[at_7] = v9;
  }
}

extern "C" __global__ void __launch_bounds__(256) k_call_between_maps_2(float* __restrict__ p0, float* __restrict__ p1) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  dg_index first = 0;
  if (dg_aligned<4>(p1) && dg_aligned<4>(p0)) {
    first = 12;
    for (dg_index at_1 = thread; at_1 < first / 4; at_1 += threads) {
      const dg_index m0_2 = at_1 * 4;
      const dg_vec<float, 4> x3 = dg_load<4>(p1 + m0_2);
      dg_vec<float, 4> y4;
      #pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float v5 = x3.x[k];
        const float v6 = v5 * 0x1p+1f;
        y4.x[k] = v6;
      }
      dg_store<4>(p0 + m0_2, y4);
    }
  }
  for (dg_index at_7 = first + thread; at_7 < 12; at_7 += threads) {
    const float v8 = p1[at_7];
    const float v9 = v8 * 0x1p+1f;
    p0[at_7] = v9;
  }
}
