extern "C" __global__ void __launch_bounds__(128) k_softmax_rows_0(float* __restrict__ p0, float* __restrict__ p1) {
  const int t = 0;
  const dg_unsigned rows = 64;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 128 + threadIdx.x; row < rows; row += (dg_unsigned)gridDim.x * 128) {
    const dg_index o0_1 = row;
    float c2[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c2[v] = __int_as_float(0xff800000);
    const bool aligned4 = dg_aligned<16>(p0 + 10 * o0_1);
    dg_vec<float, 16> k3[1];
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      k3[r] = dg_read<16>(p0 + (10 * o0_1 + e), aligned4, (int)(10 - e));
    }
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left5 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left5) {
          const dg_index i = e + v;
          const bool v6 = c2[v] != c2[v];
          const bool v7 = c2[v] >= k3[r].x[v];
          const bool v8 = (bool)(v7 | v6);
          const float v9 = v8 ? c2[v] : k3[r].x[v];
          c2[v] = v9;
        }
      }
    }
    const bool v10 = c2[0] != c2[0];
    const bool v11 = c2[0] >= c2[8];
    const bool v12 = (bool)(v11 | v10);
    const float v13 = v12 ? c2[0] : c2[8];
    const bool v14 = c2[1] != c2[1];
    const bool v15 = c2[1] >= c2[9];
    const bool v16 = (bool)(v15 | v14);
    const float v17 = v16 ? c2[1] : c2[9];
    const bool v18 = c2[2] != c2[2];
    const bool v19 = c2[2] >= c2[10];
    const bool v20 = (bool)(v19 | v18);
    const float v21 = v20 ? c2[2] : c2[10];
    const bool v22 = c2[3] != c2[3];
    const bool v23 = c2[3] >= c2[11];
    const bool v24 = (bool)(v23 | v22);
    const float v25 = v24 ? c2[3] : c2[11];
    const bool v26 = c2[4] != c2[4];
    const bool v27 = c2[4] >= c2[12];
    const bool v28 = (bool)(v27 | v26);
    const float v29 = v28 ? c2[4] : c2[12];
    const bool v30 = c2[5] != c2[5];
    const bool v31 = c2[5] >= c2[13];
    const bool v32 = (bool)(v31 | v30);
    const float v33 = v32 ? c2[5] : c2[13];
    const bool v34 = c2[6] != c2[6];
    const bool v35 = c2[6] >= c2[14];
    const bool v36 = (bool)(v35 | v34);
    const float v37 = v36 ? c2[6] : c2[14];
    const bool v38 = c2[7] != c2[7];
    const bool v39 = c2[7] >= c2[15];
    const bool v40 = (bool)(v39 | v38);
    const float v41 = v40 ? c2[7] : c2[15];
    const bool v42 = v13 != v13;
    const bool v43 = v13 >= v29;
    const bool v44 = (bool)(v43 | v42);
    const float v45 = v44 ? v13 : v29;
    const bool v46 = v17 != v17;
    const bool v47 = v17 >= v33;
    const bool v48 = (bool)(v47 | v46);
    const float v49 = v48 ? v17 : v33;
    const bool v50 = v21 != v21;
    const bool v51 = v21 >= v37;
    const bool v52 = (bool)(v51 | v50);
    const float v53 = v52 ? v21 : v37;
    const bool v54 = v25 != v25;
    const bool v55 = v25 >= v41;
    const bool v56 = (bool)(v55 | v54);
    const float v57 = v56 ? v25 : v41;
    const bool v58 = v45 != v45;
    const bool v59 = v45 >= v53;
    const bool v60 = (bool)(v59 | v58);
    const float v61 = v60 ? v45 : v53;
    const bool v62 = v49 != v49;
    const bool v63 = v49 >= v57;
    const bool v64 = (bool)(v63 | v62);
    const float v65 = v64 ? v49 : v57;
    const bool v66 = v61 != v61;
    const bool v67 = v61 >= v65;
    const bool v68 = (bool)(v67 | v66);
    const float v69 = v68 ? v61 : v65;
    float c70[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c70[v] = (-0x0p+0f);
    dg_vec<float, 16> k71[1];
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left72 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left72) {
          const dg_index i = e + v;
          const float v73 = k3[r].x[v] - v69;
          const bool v74 = v73 > 0x1.64p+6f;
          const float v75 = v74 ? 0x1.64p+6f : v73;
          const bool v76 = v75 < (-0x1.ap+6f);
          const float v77 = v76 ? 0x0p+0f : v75;
          const float v78 = fmaf(v77, 0x1.715476p+0f, 0x1.8p+23f);
          const int v79 = __float_as_int(v78);
          const int v80 = (int)((unsigned)v79 << (unsigned)22);
          const int v81 = (int)(v80 & (-8388608));
          const int v82 = (int)((unsigned)v79 << (unsigned)23);
          const int v83 = (int)((unsigned)v82 - (unsigned)v81);
          const int v84 = (int)((unsigned)v83 + (unsigned)1065353216);
          const float v85 = __int_as_float(v84);
          const int v86 = (int)((unsigned)v81 + (unsigned)1065353216);
          const float v87 = __int_as_float(v86);
          const float v88 = v78 - 0x1.8p+23f;
          const float v89 = fmaf(v88, (-0x1.62e4p-1f), v77);
          const float v90 = fmaf(v88, (-0x1.7f7d1cp-20f), v89);
          const float v91 = fmaf(0x1.6d5168p-10f, v90, 0x1.123e4cp-7f);
          const float v92 = fmaf(v91, v90, 0x1.5554e4p-5f);
          const float v93 = fmaf(v92, v90, 0x1.55548ap-3f);
          const float v94 = fmaf(v93, v90, 0x1p-1f);
          const float v95 = fmaf(v94, v90, 0x1p+0f);
          const float v96 = fmaf(v95, v90, 0x1p+0f);
          const float v97 = v96 * v87;
          const float v98 = v97 * v85;
          const float v99 = v76 ? 0x0p+0f : v98;
          k71[r].x[v] = v99;
          const float v100 = c70[v] + v99;
          c70[v] = v100;
        }
      }
    }
    const float v101 = c70[0] + c70[8];
    const float v102 = c70[1] + c70[9];
    const float v103 = c70[2] + c70[10];
    const float v104 = c70[3] + c70[11];
    const float v105 = c70[4] + c70[12];
    const float v106 = c70[5] + c70[13];
    const float v107 = c70[6] + c70[14];
    const float v108 = c70[7] + c70[15];
    const float v109 = v101 + v105;
    const float v110 = v102 + v106;
    const float v111 = v103 + v107;
    const float v112 = v104 + v108;
    const float v113 = v109 + v111;
    const float v114 = v110 + v112;
    const float v115 = v113 + v114;
    const float v116 = 0x1p+0f / v115;
    const bool aligned117 = dg_aligned<16>(p1 + 10 * o0_1);
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left118 = (int)(10 - e);
      dg_vec<float, 16> y119;
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left118) {
          const dg_index i = e + v;
          const float v120 = k71[r].x[v] * v116;
          y119.x[v] = v120;
        }
      }
      dg_write<16>(p1 + (10 * o0_1 + e), y119, aligned117, left118);
    }
  }
}
