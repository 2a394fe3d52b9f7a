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
        const bool v13 = v12 > 0x1.20f5c2p+3f;
        const float v14 = v13 ? 0x1.20f5c2p+3f : v12;
        const float v15 = fmaf(v14, 0x1.b708b2p+0f, 0x1.8p+23f);
        const int v16 = __float_as_int(v15);
        const float v17 = dg_table_0[v16 & 15];
        const float v18 = v15 - 0x1.8p+23f;
        const float v19 = fmaf(v18, (-0x1.2a8bep-1f), v14);
        const float v20 = dg_table_1[v16 & 15];
        const float v21 = dg_table_2[v16 & 15];
        const float v22 = dg_table_3[v16 & 15];
        const float v23 = dg_table_4[v16 & 15];
        const float v24 = dg_table_5[v16 & 15];
        const float v25 = dg_table_6[v16 & 15];
        const float v26 = dg_table_7[v16 & 15];
        const float v27 = fmaf(v26, v19, v25);
        const float v28 = fmaf(v27, v19, v24);
        const float v29 = fmaf(v28, v19, v23);
        const float v30 = fmaf(v29, v19, v22);
        const float v31 = fmaf(v30, v19, v21);
        const float v32 = fmaf(v31, v19, v20);
        const float v33 = fmaf(v32, v19, v17);
        const float v34 = v14 + v33;
        const bool v35 = v18 < 0x1p+1f;
        const float v36 = v35 ? v34 : v33;
        const float v37 = copysignf(v36, v11);
        const float v38 = v37 - v8;
        y7.x[k] = v38;
      }
      dg_store<2>(p0 + (30 * rest_3 + m1_4), y7);
    }
  }
  for (dg_index at_39 = first + thread; at_39 < 3000; at_39 += threads) {
    const dg_index m1_40 = dg_mod(at_39, 30);
    const dg_index rest_41 = dg_div(at_39, 30);
    const float v42 = p1[(30 * rest_41 + m1_40)];
    const float v43 = p2[m1_40];
    const float v44 = v42 * 0x1p+1f;
    const float v45 = v44 + v43;
    const float v46 = fabsf(v45);
    const bool v47 = v46 > 0x1.20f5c2p+3f;
    const float v48 = v47 ? 0x1.20f5c2p+3f : v46;
    const float v49 = fmaf(v48, 0x1.b708b2p+0f, 0x1.8p+23f);
    const int v50 = __float_as_int(v49);
    const float v51 = dg_table_0[v50 & 15];
    const float v52 = v49 - 0x1.8p+23f;
    const float v53 = fmaf(v52, (-0x1.2a8bep-1f), v48);
    const float v54 = dg_table_1[v50 & 15];
    const float v55 = dg_table_2[v50 & 15];
    const float v56 = dg_table_3[v50 & 15];
    const float v57 = dg_table_4[v50 & 15];
    const float v58 = dg_table_5[v50 & 15];
    const float v59 = dg_table_6[v50 & 15];
    const float v60 = dg_table_7[v50 & 15];
    const float v61 = fmaf(v60, v53, v59);
    const float v62 = fmaf(v61, v53, v58);
    const float v63 = fmaf(v62, v53, v57);
    const float v64 = fmaf(v63, v53, v56);
    const float v65 = fmaf(v64, v53, v55);
    const float v66 = fmaf(v65, v53, v54);
    const float v67 = fmaf(v66, v53, v51);
    const float v68 = v48 + v67;
    const bool v69 = v52 < 0x1p+1f;
    const float v70 = v69 ? v68 : v67;
    const float v71 = copysignf(v70, v45);
    const float v72 = v71 - v42;
    p0[(30 * rest_41 + m1_40)] = v72;
  }
}
