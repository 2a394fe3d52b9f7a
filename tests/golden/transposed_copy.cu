extern "C" __global__ void __launch_bounds__(256) k_transposed_copy_0(float* p0, float* p1) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  dg_index first = 0;
  if (dg_aligned<2>(p0)) {
    first = 3500;
    for (dg_index at_1 = thread; at_1 < first / 2; at_1 += threads) {
      const dg_index m1_2 = dg_mod(at_1, 25) * 2;
      const dg_index rest_3 = dg_div(at_1, 25);
      dg_vec<float, 2> y4;
      #pragma unroll
      for (int k = 0; k < 2; ++k) {
        const float v5 = p1[(rest_3 + 70 * (m1_2 + k))];
        y4.x[k] = v5;
      }
      dg_store<2>(p0 + (50 * rest_3 + m1_2), y4);
    }
  }
  for (dg_index at_6 = first + thread; at_6 < 3500; at_6 += threads) {
    const dg_index m1_7 = dg_mod(at_6, 50);
    const dg_index rest_8 = dg_div(at_6, 50);
    const float v9 = p1[(rest_8 + 70 * m1_7)];
    p0[(50 * rest_8 + m1_7)] = v9;
  }
}
