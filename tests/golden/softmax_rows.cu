extern "C" __global__ void __launch_bounds__(128) k_softmax_rows_0(float* __restrict__ p0, float* __restrict__ p1) {
  const int t = threadIdx.x & 15;
  const unsigned team = 0xffffu << (threadIdx.x & 16);
  const dg_unsigned rows = 64;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 8 + threadIdx.x / 16; row < rows; row += (dg_unsigned)gridDim.x * 8) {
    const dg_index o0_1 = row;
    float c2[4] = {__int_as_float(0xff800000), __int_as_float(0xff800000), __int_as_float(0xff800000), __int_as_float(0xff800000)};
    const bool aligned4 = dg_aligned<4>(p0 + 10 * o0_1);
    dg_vec<float, 4> k3[1];
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      k3[r] = dg_read<4>(p0 + (10 * o0_1 + e), aligned4, (int)(10 - e));
    }
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      const int left5 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
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
    const float v10 = (t & 8) ? c2[2] : c2[0];
    const float v11 = (t & 8) ? c2[3] : c2[1];
    const float v12 = (t & 8) ? c2[0] : c2[2];
    const float v13 = (t & 8) ? c2[1] : c2[3];
    const float v14 = __shfl_xor_sync(team, v12, 8);
    const float v15 = __shfl_xor_sync(team, v13, 8);
    const float v16 = (t & 8) ? v14 : v10;
    const float v17 = (t & 8) ? v15 : v11;
    const float v18 = (t & 8) ? v10 : v14;
    const float v19 = (t & 8) ? v11 : v15;
    const bool v20 = v16 != v16;
    const bool v21 = v16 >= v18;
    const bool v22 = (bool)(v21 | v20);
    const float v23 = v22 ? v16 : v18;
    const bool v24 = v17 != v17;
    const bool v25 = v17 >= v19;
    const bool v26 = (bool)(v25 | v24);
    const float v27 = v26 ? v17 : v19;
    const float v28 = (t & 4) ? v27 : v23;
    const float v29 = (t & 4) ? v23 : v27;
    const float v30 = __shfl_xor_sync(team, v29, 4);
    const float v31 = (t & 4) ? v30 : v28;
    const float v32 = (t & 4) ? v28 : v30;
    const bool v33 = v31 != v31;
    const bool v34 = v31 >= v32;
    const bool v35 = (bool)(v34 | v33);
    const float v36 = v35 ? v31 : v32;
    const float v37 = __shfl_xor_sync(team, v36, 2);
    const float v38 = (t & 2) ? v37 : v36;
    const float v39 = (t & 2) ? v36 : v37;
    const bool v40 = v38 != v38;
    const bool v41 = v38 >= v39;
    const bool v42 = (bool)(v41 | v40);
    const float v43 = v42 ? v38 : v39;
    const float v44 = __shfl_xor_sync(team, v43, 1);
    const float v45 = (t & 1) ? v44 : v43;
    const float v46 = (t & 1) ? v43 : v44;
    const bool v47 = v45 != v45;
    const bool v48 = v45 >= v46;
    const bool v49 = (bool)(v48 | v47);
    const float v50 = v49 ? v45 : v46;
    const float v51 = __shfl_xor_sync(team, v50, 8);
    const float v52 = (t & 8) ? v51 : v50;
    const float v53 = (t & 8) ? v50 : v51;
    const bool v54 = v52 != v52;
    const bool v55 = v52 >= v53;
    const bool v56 = (bool)(v55 | v54);
    const float v57 = v56 ? v52 : v53;
    const float v58 = __shfl_xor_sync(team, v57, 4);
    const float v59 = (t & 4) ? v58 : v57;
    const float v60 = (t & 4) ? v57 : v58;
    const bool v61 = v59 != v59;
    const bool v62 = v59 >= v60;
    const bool v63 = (bool)(v62 | v61);
    const float v64 = v63 ? v59 : v60;
    float c65[4] = {(-0x0p+0f), (-0x0p+0f), (-0x0p+0f), (-0x0p+0f)};
    dg_vec<float, 4> k66[1];
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      const int left67 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (v < left67) {
          const dg_index i = e + v;
          const float v68 = k3[r].x[v] - v64;
          const bool v69 = v68 > 0x1.64p+6f;
          const float v70 = v69 ? 0x1.64p+6f : v68;
          const bool v71 = v70 < (-0x1.ap+6f);
          const float v72 = v71 ? (-0x1.ap+6f) : v70;
          const float v73 = fmaf(v72, 0x1.715476p+0f, 0x1.8p+23f);
          const int v74 = __float_as_int(v73);
          const int v75 = (int)((unsigned)v74 << (unsigned)22);
          const int v76 = (int)(v75 & (-8388608));
          const int v77 = (int)((unsigned)v74 << (unsigned)23);
          const int v78 = (int)((unsigned)v77 - (unsigned)v76);
          const int v79 = (int)((unsigned)v78 + (unsigned)1065353216);
          const float v80 = __int_as_float(v79);
          const int v81 = (int)((unsigned)v76 + (unsigned)1065353216);
          const float v82 = __int_as_float(v81);
          const float v83 = v73 - 0x1.8p+23f;
          const float v84 = fmaf(v83, (-0x1.62e4p-1f), v72);
          const float v85 = fmaf(v83, (-0x1.7f7d1cp-20f), v84);
          const float v86 = fmaf(0x1.6d5168p-10f, v85, 0x1.123e4cp-7f);
          const float v87 = fmaf(v86, v85, 0x1.5554e4p-5f);
          const float v88 = fmaf(v87, v85, 0x1.55548ap-3f);
          const float v89 = fmaf(v88, v85, 0x1p-1f);
          const float v90 = fmaf(v89, v85, 0x1p+0f);
          const float v91 = fmaf(v90, v85, 0x1p+0f);
          const float v92 = v91 * v82;
          const float v93 = v92 * v80;
          k66[r].x[v] = v93;
          const float v94 = c65[v] + v93;
          c65[v] = v94;
        }
      }
    }
    const float v95 = (t & 8) ? c65[2] : c65[0];
    const float v96 = (t & 8) ? c65[3] : c65[1];
    const float v97 = (t & 8) ? c65[0] : c65[2];
    const float v98 = (t & 8) ? c65[1] : c65[3];
    const float v99 = __shfl_xor_sync(team, v97, 8);
    const float v100 = __shfl_xor_sync(team, v98, 8);
    const float v101 = v95 + v99;
    const float v102 = v96 + v100;
    const float v103 = (t & 4) ? v102 : v101;
    const float v104 = (t & 4) ? v101 : v102;
    const float v105 = __shfl_xor_sync(team, v104, 4);
    const float v106 = v103 + v105;
    const float v107 = __shfl_xor_sync(team, v106, 2);
    const float v108 = v106 + v107;
    const float v109 = __shfl_xor_sync(team, v108, 1);
    const float v110 = v108 + v109;
    const float v111 = __shfl_xor_sync(team, v110, 8);
    const float v112 = v110 + v111;
    const float v113 = __shfl_xor_sync(team, v112, 4);
    const float v114 = v112 + v113;
    const float v115 = 0x1p+0f / v114;
    const bool aligned116 = dg_aligned<4>(p1 + 10 * o0_1);
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      const int left117 = (int)(10 - e);
      dg_vec<float, 4> y118;
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (v < left117) {
          const dg_index i = e + v;
          const float v119 = k66[r].x[v] * v115;
          y118.x[v] = v119;
        }
      }
      dg_write<4>(p1 + (10 * o0_1 + e), y118, aligned116, left117);
    }
  }
}
