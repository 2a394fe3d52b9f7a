extern "C" __global__ void __launch_bounds__(256) k_map_chain_0(float* __restrict__ p0, float* __restrict__ p1, float* __restrict__ p2) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  dg_index first = 0;
  if (dg_aligned<2>(p1) && dg_aligned<2>(p2) && dg_aligned<2>(p0)) {
    first = 3000;
    for (dg_index at_1 = thread; at_1 < first / 2; at_1 += threads) {
      const dg_index m1_2 = dg_mod(at_1, 15);
      const dg_index rest_3 = dg_div(at_1, 15);
      const dg_index m1_4 = m1_2 * 2;
      const dg_vec<float, 2> x5 = dg_load<2>(p1 + (30 * rest_3 + m1_4));
      const dg_vec<float, 2> x6 = dg_load<2>(p2 + m1_4);
      dg_vec<float, 2> y7;
      #pragma unroll
      for (int k = 0; k < 2; ++k) {
        const float v8 = x5.x[k];
        const float v9 = x6.x[k];
        const float v10 = v8 * 0x1p+1f;
        const float v11 = v10 + v9;
        const float v12 = fabsf(v11);
        const bool v13 = v12 > 0x1.2p+4f;
        const float v14 = v13 ? 0x1.2p+4f : v12;
        const float v15 = v14 + v14;
        const float v16 = fmaf(v15, 0x1.715476p+0f, 0x1.8p+23f);
        const int v17 = __float_as_int(v16);
        const int v18 = (int)((unsigned)v17 << (unsigned)23);
        const int v19 = (int)((unsigned)v18 + (unsigned)1065353216);
        const float v20 = __int_as_float(v19);
        const float v21 = v16 - 0x1.8p+23f;
        const float v22 = fmaf(v21, (-0x1.62e4p-1f), v15);
        const float v23 = fmaf(v21, (-0x1.7f7d1cp-20f), v22);
        const float v24 = fmaf(0x1.6d5168p-10f, v23, 0x1.123e4cp-7f);
        const float v25 = fmaf(v24, v23, 0x1.5554e4p-5f);
        const float v26 = fmaf(v25, v23, 0x1.55548ap-3f);
        const float v27 = fmaf(v26, v23, 0x1p-1f);
        const float v28 = fmaf(v27, v23, 0x1p+0f);
        const float v29 = fmaf(v28, v23, 0x1p+0f);
        const float v30 = v29 * v20;
        const float v31 = v30 + 0x1p+0f;
        const float v32 = 0x1p+1f / v31;
        const float v33 = 0x1p+0f - v32;
        const float v34 = v11 * v11;
        const float v35 = fmaf((-0x1.82a7d8p-8f), v34, 0x1.54ca2p-6f);
        const float v36 = fmaf(v35, v34, (-0x1.b89b86p-5f));
        const float v37 = fmaf(v36, v34, 0x1.1109c2p-3f);
        const float v38 = fmaf(v37, v34, (-0x1.55553ep-2f));
        const float v39 = v38 * v34;
        const float v40 = fmaf(v39, v11, v11);
        const bool v41 = v12 < 0x1.333334p-1f;
        const float v42 = v41 ? v40 : v33;
        const float v43 = copysignf(v42, v11);
        const float v44 = v43 - v8;
        y7.x[k] = v44;
      }
      dg_store<2>(p0 + (30 * rest_3 + m1_4), y7);
    }
  }
  for (dg_index at_45 = first + thread; at_45 < 3000; at_45 += threads) {
    const dg_index m1_46 = dg_mod(at_45, 30);
    const dg_index rest_47 = dg_div(at_45, 30);
    const float v48 = p1[(30 * rest_47 + m1_46)];
    const float v49 = p2[m1_46];
    const float v50 = v48 * 0x1p+1f;
    const float v51 = v50 + v49;
    const float v52 = fabsf(v51);
    const bool v53 = v52 > 0x1.2p+4f;
    const float v54 = v53 ? 0x1.2p+4f : v52;
    const float v55 = v54 + v54;
    const float v56 = fmaf(v55, 0x1.715476p+0f, 0x1.8p+23f);
    const int v57 = __float_as_int(v56);
    const int v58 = (int)((unsigned)v57 << (unsigned)23);
    const int v59 = (int)((unsigned)v58 + (unsigned)1065353216);
    const float v60 = __int_as_float(v59);
    const float v61 = v56 - 0x1.8p+23f;
    const float v62 = fmaf(v61, (-0x1.62e4p-1f), v55);
    const float v63 = fmaf(v61, (-0x1.7f7d1cp-20f), v62);
    const float v64 = fmaf(0x1.6d5168p-10f, v63, 0x1.123e4cp-7f);
    const float v65 = fmaf(v64, v63, 0x1.5554e4p-5f);
    const float v66 = fmaf(v65, v63, 0x1.55548ap-3f);
    const float v67 = fmaf(v66, v63, 0x1p-1f);
    const float v68 = fmaf(v67, v63, 0x1p+0f);
    const float v69 = fmaf(v68, v63, 0x1p+0f);
    const float v70 = v69 * v60;
    const float v71 = v70 + 0x1p+0f;
    const float v72 = 0x1p+1f / v71;
    const float v73 = 0x1p+0f - v72;
    const float v74 = v51 * v51;
    const float v75 = fmaf((-0x1.82a7d8p-8f), v74, 0x1.54ca2p-6f);
    const float v76 = fmaf(v75, v74, (-0x1.b89b86p-5f));
    const float v77 = fmaf(v76, v74, 0x1.1109c2p-3f);
    const float v78 = fmaf(v77, v74, (-0x1.55553ep-2f));
    const float v79 = v78 * v74;
    const float v80 = fmaf(v79, v51, v51);
    const bool v81 = v52 < 0x1.333334p-1f;
    const float v82 = v81 ? v80 : v73;
    const float v83 = copysignf(v82, v51);
    const float v84 = v83 - v48;
    p0[(30 * rest_47 + m1_46)] = v84;
  }
}
