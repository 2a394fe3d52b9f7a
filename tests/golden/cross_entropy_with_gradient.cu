extern "C" __global__ void __launch_bounds__(128) k_cross_entropy_with_gradient_0(long long* __restrict__ p0, unsigned char* __restrict__ p1, long long* __restrict__ p2, float* __restrict__ p3, float* __restrict__ p4, float* __restrict__ p5, float* __restrict__ p6) {
  const int t = threadIdx.x & 31;
  const float v1 = p4[0];
  const dg_unsigned rows = 1;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 4 + threadIdx.x / 32; row < rows; row += (dg_unsigned)gridDim.x * 4) {
    float c2[2] = {(-0x0p+0f), (-0x0p+0f)};
    const bool aligned4 = dg_aligned<2>(p0);
    const bool aligned5 = dg_aligned<2>(p1);
    const bool aligned6 = dg_aligned<2>(p2);
    dg_vec<long long, 2> k3[1];
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 2;
      k3[r] = dg_read<2>(p0 + e, aligned4, (int)(32 - e));
    }
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 2;
      if (e < 32) {
        dg_vec<unsigned char, 2> y7;
        dg_vec<long long, 2> y8;
        #pragma unroll
        for (int v = 0; v < 2; ++v) {
          const dg_index i = e + v;
          const bool v9 = k3[r].x[v] != (-100ll);
          const float v10 = (float)v9;
          const float v11 = c2[v] + v10;
          const long long v12 = v9 ? k3[r].x[v] : 0ll;
          y7.x[v] = v9;
          y8.x[v] = v12;
          c2[v] = v11;
        }
        dg_write<2>(p1 + e, y7, aligned5, 2);
        dg_write<2>(p2 + e, y8, aligned6, 2);
      }
    }
    const float v13 = (t & 16) ? c2[1] : c2[0];
    const float v14 = (t & 16) ? c2[0] : c2[1];
    const float v15 = __shfl_xor_sync(0xffffffffu, v14, 16);
    const float v16 = v13 + v15;
    const float v17 = __shfl_xor_sync(0xffffffffu, v16, 8);
    const float v18 = v16 + v17;
    const float v19 = __shfl_xor_sync(0xffffffffu, v18, 4);
    const float v20 = v18 + v19;
    const float v21 = __shfl_xor_sync(0xffffffffu, v20, 2);
    const float v22 = v20 + v21;
    const float v23 = __shfl_xor_sync(0xffffffffu, v22, 1);
    const float v24 = v22 + v23;
    const float v25 = __shfl_xor_sync(0xffffffffu, v24, 16);
    const float v26 = v24 + v25;
    const float v27 = v1 / v26;
    const bool aligned28 = dg_aligned<2>(p3);
    const bool aligned29 = dg_aligned<2>(p5);
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 2;
      if (e < 32) {
        dg_vec<float, 2> y30;
        dg_vec<float, 2> y31;
        #pragma unroll
        for (int v = 0; v < 2; ++v) {
          const dg_index i = e + v;
          const bool v32 = k3[r].x[v] != (-100ll);
          const float v33 = v32 ? v27 : 0x0p+0f;
          const float v34 = -v33;
          y30.x[v] = v33;
          y31.x[v] = v34;
        }
        dg_write<2>(p3 + e, y30, aligned28, 2);
        dg_write<2>(p5 + e, y31, aligned29, 2);
      }
    }
    if (t == 0) {
      p6[0] = v26;
    }
  }
}

extern "C" __global__ void __launch_bounds__(128) k_cross_entropy_with_gradient_1(long long* __restrict__ p0, float* __restrict__ p1, float* __restrict__ p2, float* __restrict__ p3, float* __restrict__ p4, float* __restrict__ p5, unsigned char* __restrict__ p6, dg_word* error) {
  const int t = threadIdx.x & 15;
  const unsigned team = 0xffffu << (threadIdx.x & 16);
  const int v1 = dg_failed(error);
  const int v2 = __shfl_xor_sync(team, v1, 8);
  const int v3 = v1 | v2;
  const int v4 = __shfl_xor_sync(team, v3, 4);
  const int v5 = v3 | v4;
  const int v6 = __shfl_xor_sync(team, v5, 2);
  const int v7 = v5 | v6;
  const int v8 = __shfl_xor_sync(team, v7, 1);
  const int v9 = v7 | v8;
  if (v9) return;
  const dg_unsigned rows = 32;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 8 + threadIdx.x / 16; row < rows; row += (dg_unsigned)gridDim.x * 8) {
    const dg_index o0_10 = row;
    const long long v11 = p0[o0_10];
    if ((dg_word)v11 >= (dg_word)10) {
      if (t == 0) dg_fail(error, 0, v11);
      continue;
    }
    float c12[4] = {__int_as_float(0xff800000), __int_as_float(0xff800000), __int_as_float(0xff800000), __int_as_float(0xff800000)};
    const bool aligned14 = dg_aligned<4>(p1 + 10 * o0_10);
    dg_vec<float, 4> k13[1];
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      k13[r] = dg_read<4>(p1 + (10 * o0_10 + e), aligned14, (int)(10 - e));
    }
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      const int left15 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (v < left15) {
          const dg_index i = e + v;
          const bool v16 = c12[v] != c12[v];
          const bool v17 = c12[v] >= k13[r].x[v];
          const bool v18 = (bool)(v17 | v16);
          const float v19 = v18 ? c12[v] : k13[r].x[v];
          c12[v] = v19;
        }
      }
    }
    const float v20 = (t & 8) ? c12[2] : c12[0];
    const float v21 = (t & 8) ? c12[3] : c12[1];
    const float v22 = (t & 8) ? c12[0] : c12[2];
    const float v23 = (t & 8) ? c12[1] : c12[3];
    const float v24 = __shfl_xor_sync(team, v22, 8);
    const float v25 = __shfl_xor_sync(team, v23, 8);
    const float v26 = (t & 8) ? v24 : v20;
    const float v27 = (t & 8) ? v25 : v21;
    const float v28 = (t & 8) ? v20 : v24;
    const float v29 = (t & 8) ? v21 : v25;
    const bool v30 = v26 != v26;
    const bool v31 = v26 >= v28;
    const bool v32 = (bool)(v31 | v30);
    const float v33 = v32 ? v26 : v28;
    const bool v34 = v27 != v27;
    const bool v35 = v27 >= v29;
    const bool v36 = (bool)(v35 | v34);
    const float v37 = v36 ? v27 : v29;
    const float v38 = (t & 4) ? v37 : v33;
    const float v39 = (t & 4) ? v33 : v37;
    const float v40 = __shfl_xor_sync(team, v39, 4);
    const float v41 = (t & 4) ? v40 : v38;
    const float v42 = (t & 4) ? v38 : v40;
    const bool v43 = v41 != v41;
    const bool v44 = v41 >= v42;
    const bool v45 = (bool)(v44 | v43);
    const float v46 = v45 ? v41 : v42;
    const float v47 = __shfl_xor_sync(team, v46, 2);
    const float v48 = (t & 2) ? v47 : v46;
    const float v49 = (t & 2) ? v46 : v47;
    const bool v50 = v48 != v48;
    const bool v51 = v48 >= v49;
    const bool v52 = (bool)(v51 | v50);
    const float v53 = v52 ? v48 : v49;
    const float v54 = __shfl_xor_sync(team, v53, 1);
    const float v55 = (t & 1) ? v54 : v53;
    const float v56 = (t & 1) ? v53 : v54;
    const bool v57 = v55 != v55;
    const bool v58 = v55 >= v56;
    const bool v59 = (bool)(v58 | v57);
    const float v60 = v59 ? v55 : v56;
    const float v61 = __shfl_xor_sync(team, v60, 8);
    const float v62 = (t & 8) ? v61 : v60;
    const float v63 = (t & 8) ? v60 : v61;
    const bool v64 = v62 != v62;
    const bool v65 = v62 >= v63;
    const bool v66 = (bool)(v65 | v64);
    const float v67 = v66 ? v62 : v63;
    const float v68 = __shfl_xor_sync(team, v67, 4);
    const float v69 = (t & 4) ? v68 : v67;
    const float v70 = (t & 4) ? v67 : v68;
    const bool v71 = v69 != v69;
    const bool v72 = v69 >= v70;
    const bool v73 = (bool)(v72 | v71);
    const float v74 = v73 ? v69 : v70;
    float c75[4] = {(-0x0p+0f), (-0x0p+0f), (-0x0p+0f), (-0x0p+0f)};
    float c76[4] = {(-0x0p+0f), (-0x0p+0f), (-0x0p+0f), (-0x0p+0f)};
    dg_vec<float, 4> k77[1];
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      const int left78 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (v < left78) {
          const dg_index i = e + v;
          const float v79 = k13[r].x[v] - v74;
          const bool v80 = v79 > 0x1.64p+6f;
          const float v81 = v80 ? 0x1.64p+6f : v79;
          const bool v82 = v81 < (-0x1.ap+6f);
          const float v83 = v82 ? (-0x1.ap+6f) : v81;
          const float v84 = fmaf(v83, 0x1.715476p+0f, 0x1.8p+23f);
          const int v85 = __float_as_int(v84);
          const int v86 = (int)((unsigned)v85 << (unsigned)22);
          const int v87 = (int)(v86 & (-8388608));
          const int v88 = (int)((unsigned)v85 << (unsigned)23);
          const int v89 = (int)((unsigned)v88 - (unsigned)v87);
          const int v90 = (int)((unsigned)v89 + (unsigned)1065353216);
          const float v91 = __int_as_float(v90);
          const int v92 = (int)((unsigned)v87 + (unsigned)1065353216);
          const float v93 = __int_as_float(v92);
          const float v94 = v84 - 0x1.8p+23f;
          const float v95 = fmaf(v94, (-0x1.62e4p-1f), v83);
          const float v96 = fmaf(v94, (-0x1.7f7d1cp-20f), v95);
          const float v97 = fmaf(0x1.6d5168p-10f, v96, 0x1.123e4cp-7f);
          const float v98 = fmaf(v97, v96, 0x1.5554e4p-5f);
          const float v99 = fmaf(v98, v96, 0x1.55548ap-3f);
          const float v100 = fmaf(v99, v96, 0x1p-1f);
          const float v101 = fmaf(v100, v96, 0x1p+0f);
          const float v102 = fmaf(v101, v96, 0x1p+0f);
          const float v103 = v102 * v93;
          const float v104 = v103 * v91;
          k77[r].x[v] = v104;
          const float v105 = c75[v] + v104;
          const long long v106 = i;
          const bool v107 = v11 == v106;
          const float v108 = v107 ? v79 : 0x0p+0f;
          const float v109 = c76[v] + v108;
          c75[v] = v105;
          c76[v] = v109;
        }
      }
    }
    const float v110 = (t & 8) ? c75[2] : c75[0];
    const float v111 = (t & 8) ? c75[3] : c75[1];
    const float v112 = (t & 8) ? c75[0] : c75[2];
    const float v113 = (t & 8) ? c75[1] : c75[3];
    const float v114 = __shfl_xor_sync(team, v112, 8);
    const float v115 = __shfl_xor_sync(team, v113, 8);
    const float v116 = v110 + v114;
    const float v117 = v111 + v115;
    const float v118 = (t & 4) ? v117 : v116;
    const float v119 = (t & 4) ? v116 : v117;
    const float v120 = __shfl_xor_sync(team, v119, 4);
    const float v121 = v118 + v120;
    const float v122 = __shfl_xor_sync(team, v121, 2);
    const float v123 = v121 + v122;
    const float v124 = __shfl_xor_sync(team, v123, 1);
    const float v125 = v123 + v124;
    const float v126 = __shfl_xor_sync(team, v125, 8);
    const float v127 = v125 + v126;
    const float v128 = __shfl_xor_sync(team, v127, 4);
    const float v129 = v127 + v128;
    const float v130 = (t & 8) ? c76[2] : c76[0];
    const float v131 = (t & 8) ? c76[3] : c76[1];
    const float v132 = (t & 8) ? c76[0] : c76[2];
    const float v133 = (t & 8) ? c76[1] : c76[3];
    const float v134 = __shfl_xor_sync(team, v132, 8);
    const float v135 = __shfl_xor_sync(team, v133, 8);
    const float v136 = v130 + v134;
    const float v137 = v131 + v135;
    const float v138 = (t & 4) ? v137 : v136;
    const float v139 = (t & 4) ? v136 : v137;
    const float v140 = __shfl_xor_sync(team, v139, 4);
    const float v141 = v138 + v140;
    const float v142 = __shfl_xor_sync(team, v141, 2);
    const float v143 = v141 + v142;
    const float v144 = __shfl_xor_sync(team, v143, 1);
    const float v145 = v143 + v144;
    const float v146 = __shfl_xor_sync(team, v145, 8);
    const float v147 = v145 + v146;
    const float v148 = __shfl_xor_sync(team, v147, 4);
    const float v149 = v147 + v148;
    const float v150 = p3[o0_10];
    const float v151 = p4[o0_10];
    const float v152 = v151 / v129;
    const bool aligned153 = dg_aligned<4>(p2 + 10 * o0_10);
    {
      const int r = 0;
      const dg_index e = r * 64 + t * 4;
      const int left154 = (int)(10 - e);
      dg_vec<float, 4> y155;
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (v < left154) {
          const dg_index i = e + v;
          const float v156 = v152 * k77[r].x[v];
          const long long v157 = i;
          const bool v158 = v11 == v157;
          const float v159 = v158 ? v150 : 0x0p+0f;
          const float v160 = v159 + v156;
          y155.x[v] = v160;
        }
      }
      dg_write<4>(p2 + (10 * o0_10 + e), y155, aligned153, left154);
    }
    if (t == 0) {
      const float v161 = v129 + v129;
      const float v162 = v129 * 0x1p+23f;
      const bool v163 = v129 < 0x1p-126f;
      const float v164 = v163 ? v162 : v129;
      const int v165 = __float_as_int(v164);
      const int v166 = (int)((unsigned)v165 - (unsigned)1059760811);
      const int v167 = (int)(v166 & (-8388608));
      const int v168 = (int)((unsigned)v165 - (unsigned)v167);
      const float v169 = __int_as_float(v168);
      const float v170 = v169 - 0x1p+0f;
      const float v171 = v170 * v170;
      const float v172 = fmaf((-0x1.03037ap-3f), v170, 0x1.1ee68ap-3f);
      const float v173 = fmaf(v172, v170, (-0x1.f56284p-4f));
      const float v174 = fmaf(v173, v170, 0x1.1eb8dep-3f);
      const float v175 = fmaf(v174, v170, (-0x1.55884ep-3f));
      const float v176 = fmaf(v175, v170, 0x1.99d268p-3f);
      const float v177 = fmaf(v176, v170, (-0x1.ffff6ap-3f));
      const float v178 = fmaf(v177, v170, 0x1.5555p-2f);
      const float v179 = fmaf(v178, v170, (-0x1p-1f));
      const float v180 = fmaf(v179, v171, v170);
      const float v181 = v163 ? (-0x1.7p+4f) : 0x0p+0f;
      const int v182 = (int)(v167 >> 23);
      const float v183 = (float)v182;
      const float v184 = v183 + v181;
      const float v185 = fmaf(v184, 0x1.62e43p-1f, v180);
      const bool v186 = v129 < __int_as_float(0x7f800000);
      const float v187 = v186 ? v185 : v161;
      const bool v188 = v129 < 0x0p+0f;
      const float v189 = v188 ? __int_as_float(0x7fc00000) : v187;
      const bool v190 = v129 == 0x0p+0f;
      const float v191 = v190 ? __int_as_float(0xff800000) : v189;
      const float v192 = v191 - v149;
      const bool v193 = p6[o0_10] != 0;
      const float v194 = v193 ? v192 : 0x0p+0f;
      p5[o0_10] = v194;
    }
  }
}

extern "C" __global__ void __launch_bounds__(128) k_cross_entropy_with_gradient_2(float* __restrict__ p0, float* __restrict__ p1, float* __restrict__ p2, dg_word* error) {
  const int t = threadIdx.x & 15;
  const unsigned team = 0xffffu << (threadIdx.x & 16);
  if (dg_failed(error)) return;
  const float v1 = p2[0];
  const dg_unsigned rows = 1;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 8 + threadIdx.x / 16; row < rows; row += (dg_unsigned)gridDim.x * 8) {
    float c2[4] = {(-0x0p+0f), (-0x0p+0f), (-0x0p+0f), (-0x0p+0f)};
    const bool aligned3 = dg_aligned<4>(p0);
    {
      const dg_index e = t * 4;
      if (e < 32) {
        const dg_vec<float, 4> x4 = dg_read<4>(p0 + e, aligned3, 4);
        #pragma unroll
        for (int v = 0; v < 4; ++v) {
          const dg_index i = e + v;
          const float v5 = c2[v] + x4.x[v];
          c2[v] = v5;
        }
      }
    }
    const float v6 = (t & 8) ? c2[2] : c2[0];
    const float v7 = (t & 8) ? c2[3] : c2[1];
    const float v8 = (t & 8) ? c2[0] : c2[2];
    const float v9 = (t & 8) ? c2[1] : c2[3];
    const float v10 = __shfl_xor_sync(team, v8, 8);
    const float v11 = __shfl_xor_sync(team, v9, 8);
    const float v12 = v6 + v10;
    const float v13 = v7 + v11;
    const float v14 = (t & 4) ? v13 : v12;
    const float v15 = (t & 4) ? v12 : v13;
    const float v16 = __shfl_xor_sync(team, v15, 4);
    const float v17 = v14 + v16;
    const float v18 = __shfl_xor_sync(team, v17, 2);
    const float v19 = v17 + v18;
    const float v20 = __shfl_xor_sync(team, v19, 1);
    const float v21 = v19 + v20;
    const float v22 = __shfl_xor_sync(team, v21, 8);
    const float v23 = v21 + v22;
    const float v24 = __shfl_xor_sync(team, v23, 4);
    const float v25 = v23 + v24;
    if (t == 0) {
      const float v26 = v25 / v1;
      p1[0] = v26;
    }
  }
}
