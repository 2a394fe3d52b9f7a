extern "C" __global__ void __launch_bounds__(256) k_map_chain_0(float* p0, float* p1, float* p2) {
  const dg_index thread = (dg_index)blockIdx.x * 256 + threadIdx.x;
  const dg_index threads = (dg_index)gridDim.x * 256;
  dg_index first = 0;
  if (dg_aligned<2>(p1) && dg_aligned<2>(p2) && dg_aligned<2>(p0)) {
    first = 3000;
    for (dg_index at_1 = thread; at_1 < first / 2; at_1 += threads) {
      const dg_index m1_2 = dg_mod(at_1, 15) * 2;
      const dg_index rest_3 = dg_div(at_1, 15);
      const dg_vec<float, 2> x4 = dg_load<2>(p1 + (30 * rest_3 + m1_2));
      const dg_vec<float, 2> x5 = dg_load<2>(p2 + m1_2);
      dg_vec<float, 2> y6;
      #pragma unroll
      for (int k = 0; k < 2; ++k) {
        const float v7 = x4.x[k];
        const float v8 = x5.x[k];
        const float v9 = v7 * 0x1p+1f;
        const float v10 = v9 + v8;
        const float v11 = fabsf(v10);
        const bool v12 = v11 > 0x1.2p+4f;
        const float v13 = v12 ? 0x1.2p+4f : v11;
        const float v14 = v13 + v13;
        const float v15 = fmaf(v14, 0x1.715476p+0f, 0x1.8p+23f);
        const int v16 = __float_as_int(v15);
        const int v17 = (int)((unsigned)v16 << (unsigned)23);
        const int v18 = (int)((unsigned)v17 + (unsigned)1065353216);
        const float v19 = __int_as_float(v18);
        const float v20 = v15 - 0x1.8p+23f;
        const float v21 = fmaf(v20, (-0x1.62e4p-1f), v14);
        const float v22 = fmaf(v20, (-0x1.7f7d1cp-20f), v21);
        const float v23 = fmaf(0x1.6d5168p-10f, v22, 0x1.123e4cp-7f);
        const float v24 = fmaf(v23, v22, 0x1.5554e4p-5f);
        const float v25 = fmaf(v24, v22, 0x1.55548ap-3f);
        const float v26 = fmaf(v25, v22, 0x1p-1f);
        const float v27 = fmaf(v26, v22, 0x1p+0f);
        const float v28 = fmaf(v27, v22, 0x1p+0f);
        const float v29 = v28 * v19;
        const float v30 = v29 + 0x1p+0f;
        const float v31 = 0x1p+1f / v30;
        const float v32 = 0x1p+0f - v31;
        const float v33 = v10 * v10;
        const float v34 = fmaf((-0x1.82a7d8p-8f), v33, 0x1.54ca2p-6f);
        const float v35 = fmaf(v34, v33, (-0x1.b89b86p-5f));
        const float v36 = fmaf(v35, v33, 0x1.1109c2p-3f);
        const float v37 = fmaf(v36, v33, (-0x1.55553ep-2f));
        const float v38 = v37 * v33;
        const float v39 = fmaf(v38, v10, v10);
        const bool v40 = v11 < 0x1.333334p-1f;
        const float v41 = v40 ? v39 : v32;
        const float v42 = copysignf(v41, v10);
        const float v43 = v42 - v7;
        y6.x[k] = v43;
      }
      dg_store<2>(p0 + (30 * rest_3 + m1_2), y6);
    }
  }
  for (dg_index at_44 = first + thread; at_44 < 3000; at_44 += threads) {
    const dg_index m1_45 = dg_mod(at_44, 30);
    const dg_index rest_46 = dg_div(at_44, 30);
    const float v47 = p1[(30 * rest_46 + m1_45)];
    const float v48 = p2[m1_45];
    const float v49 = v47 * 0x1p+1f;
    const float v50 = v49 + v48;
    const float v51 = fabsf(v50);
    const bool v52 = v51 > 0x1.2p+4f;
    const float v53 = v52 ? 0x1.2p+4f : v51;
    const float v54 = v53 + v53;
    const float v55 = fmaf(v54, 0x1.715476p+0f, 0x1.8p+23f);
    const int v56 = __float_as_int(v55);
    const int v57 = (int)((unsigned)v56 << (unsigned)23);
    const int v58 = (int)((unsigned)v57 + (unsigned)1065353216);
    const float v59 = __int_as_float(v58);
    const float v60 = v55 - 0x1.8p+23f;
    const float v61 = fmaf(v60, (-0x1.62e4p-1f), v54);
    const float v62 = fmaf(v60, (-0x1.7f7d1cp-20f), v61);
    const float v63 = fmaf(0x1.6d5168p-10f, v62, 0x1.123e4cp-7f);
    const float v64 = fmaf(v63, v62, 0x1.5554e4p-5f);
    const float v65 = fmaf(v64, v62, 0x1.55548ap-3f);
    const float v66 = fmaf(v65, v62, 0x1p-1f);
    const float v67 = fmaf(v66, v62, 0x1p+0f);
    const float v68 = fmaf(v67, v62, 0x1p+0f);
    const float v69 = v68 * v59;
    const float v70 = v69 + 0x1p+0f;
    const float v71 = 0x1p+1f / v70;
    const float v72 = 0x1p+0f - v71;
    const float v73 = v50 * v50;
    const float v74 = fmaf((-0x1.82a7d8p-8f), v73, 0x1.54ca2p-6f);
    const float v75 = fmaf(v74, v73, (-0x1.b89b86p-5f));
    const float v76 = fmaf(v75, v73, 0x1.1109c2p-3f);
    const float v77 = fmaf(v76, v73, (-0x1.55553ep-2f));
    const float v78 = v77 * v73;
    const float v79 = fmaf(v78, v50, v50);
    const bool v80 = v51 < 0x1.333334p-1f;
    const float v81 = v80 ? v79 : v72;
    const float v82 = copysignf(v81, v50);
    const float v83 = v82 - v47;
    p0[(30 * rest_46 + m1_45)] = v83;
  }
}
