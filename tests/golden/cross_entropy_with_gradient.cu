extern "C" __global__ void __launch_bounds__(128) k_cross_entropy_with_gradient_0(long long* __restrict__ p0, unsigned char* __restrict__ p1, long long* __restrict__ p2, float* __restrict__ p3, float* __restrict__ p4, float* __restrict__ p5, float* __restrict__ p6) {
  const int t = threadIdx.x & 31;
  const float v1 = p4[0];
  const dg_unsigned rows = 1;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 4 + threadIdx.x / 32; row < rows; row += (dg_unsigned)gridDim.x * 4) {
    float c2[2];
    #pragma unroll
    for (int v = 0; v < 2; ++v) c2[v] = (-0x0p+0f);
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
  const int t = 0;
  const int v1 = dg_failed(error);
  if (v1) return;
  const dg_unsigned rows = 32;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 128 + threadIdx.x; row < rows; row += (dg_unsigned)gridDim.x * 128) {
    const dg_index o0_2 = row;
    const long long v3 = p0[o0_2];
    if ((dg_word)v3 >= (dg_word)10) {
      if (t == 0) dg_fail(error, 0, v3);
      continue;
    }
    float c4[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c4[v] = __int_as_float(0xff800000);
    const bool aligned6 = dg_aligned<16>(p1 + 10 * o0_2);
    dg_vec<float, 16> k5[1];
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      k5[r] = dg_read<16>(p1 + (10 * o0_2 + e), aligned6, (int)(10 - e));
    }
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left7 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left7) {
          const dg_index i = e + v;
          const bool v8 = c4[v] != c4[v];
          const bool v9 = c4[v] >= k5[r].x[v];
          const bool v10 = (bool)(v9 | v8);
          const float v11 = v10 ? c4[v] : k5[r].x[v];
          c4[v] = v11;
        }
      }
    }
    const bool v12 = c4[0] != c4[0];
    const bool v13 = c4[0] >= c4[8];
    const bool v14 = (bool)(v13 | v12);
    const float v15 = v14 ? c4[0] : c4[8];
    const bool v16 = c4[1] != c4[1];
    const bool v17 = c4[1] >= c4[9];
    const bool v18 = (bool)(v17 | v16);
    const float v19 = v18 ? c4[1] : c4[9];
    const bool v20 = c4[2] != c4[2];
    const bool v21 = c4[2] >= c4[10];
    const bool v22 = (bool)(v21 | v20);
    const float v23 = v22 ? c4[2] : c4[10];
    const bool v24 = c4[3] != c4[3];
    const bool v25 = c4[3] >= c4[11];
    const bool v26 = (bool)(v25 | v24);
    const float v27 = v26 ? c4[3] : c4[11];
    const bool v28 = c4[4] != c4[4];
    const bool v29 = c4[4] >= c4[12];
    const bool v30 = (bool)(v29 | v28);
    const float v31 = v30 ? c4[4] : c4[12];
    const bool v32 = c4[5] != c4[5];
    const bool v33 = c4[5] >= c4[13];
    const bool v34 = (bool)(v33 | v32);
    const float v35 = v34 ? c4[5] : c4[13];
    const bool v36 = c4[6] != c4[6];
    const bool v37 = c4[6] >= c4[14];
    const bool v38 = (bool)(v37 | v36);
    const float v39 = v38 ? c4[6] : c4[14];
    const bool v40 = c4[7] != c4[7];
    const bool v41 = c4[7] >= c4[15];
    const bool v42 = (bool)(v41 | v40);
    const float v43 = v42 ? c4[7] : c4[15];
    const bool v44 = v15 != v15;
    const bool v45 = v15 >= v31;
    const bool v46 = (bool)(v45 | v44);
    const float v47 = v46 ? v15 : v31;
    const bool v48 = v19 != v19;
    const bool v49 = v19 >= v35;
    const bool v50 = (bool)(v49 | v48);
    const float v51 = v50 ? v19 : v35;
    const bool v52 = v23 != v23;
    const bool v53 = v23 >= v39;
    const bool v54 = (bool)(v53 | v52);
    const float v55 = v54 ? v23 : v39;
    const bool v56 = v27 != v27;
    const bool v57 = v27 >= v43;
    const bool v58 = (bool)(v57 | v56);
    const float v59 = v58 ? v27 : v43;
    const bool v60 = v47 != v47;
    const bool v61 = v47 >= v55;
    const bool v62 = (bool)(v61 | v60);
    const float v63 = v62 ? v47 : v55;
    const bool v64 = v51 != v51;
    const bool v65 = v51 >= v59;
    const bool v66 = (bool)(v65 | v64);
    const float v67 = v66 ? v51 : v59;
    const bool v68 = v63 != v63;
    const bool v69 = v63 >= v67;
    const bool v70 = (bool)(v69 | v68);
    const float v71 = v70 ? v63 : v67;
    float c72[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c72[v] = (-0x0p+0f);
    float c73[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c73[v] = (-0x0p+0f);
    dg_vec<float, 16> k74[1];
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left75 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left75) {
          const dg_index i = e + v;
          const float v76 = k5[r].x[v] - v71;
          const bool v77 = v76 > 0x1.64p+6f;
          const float v78 = v77 ? 0x1.64p+6f : v76;
          const bool v79 = v78 < (-0x1.ap+6f);
          const float v80 = v79 ? (-0x1.ap+6f) : v78;
          const float v81 = fmaf(v80, 0x1.715476p+0f, 0x1.8p+23f);
          const int v82 = __float_as_int(v81);
          const int v83 = (int)((unsigned)v82 << (unsigned)22);
          const int v84 = (int)(v83 & (-8388608));
          const int v85 = (int)((unsigned)v82 << (unsigned)23);
          const int v86 = (int)((unsigned)v85 - (unsigned)v84);
          const int v87 = (int)((unsigned)v86 + (unsigned)1065353216);
          const float v88 = __int_as_float(v87);
          const int v89 = (int)((unsigned)v84 + (unsigned)1065353216);
          const float v90 = __int_as_float(v89);
          const float v91 = v81 - 0x1.8p+23f;
          const float v92 = fmaf(v91, (-0x1.62e4p-1f), v80);
          const float v93 = fmaf(v91, (-0x1.7f7d1cp-20f), v92);
          const float v94 = fmaf(0x1.6d5168p-10f, v93, 0x1.123e4cp-7f);
          const float v95 = fmaf(v94, v93, 0x1.5554e4p-5f);
          const float v96 = fmaf(v95, v93, 0x1.55548ap-3f);
          const float v97 = fmaf(v96, v93, 0x1p-1f);
          const float v98 = fmaf(v97, v93, 0x1p+0f);
          const float v99 = fmaf(v98, v93, 0x1p+0f);
          const float v100 = v99 * v90;
          const float v101 = v100 * v88;
          k74[r].x[v] = v101;
          const float v102 = c72[v] + v101;
          const long long v103 = i;
          const bool v104 = v3 == v103;
          const float v105 = v104 ? v76 : 0x0p+0f;
          const float v106 = c73[v] + v105;
          c72[v] = v102;
          c73[v] = v106;
        }
      }
    }
    const float v107 = c72[0] + c72[8];
    const float v108 = c72[1] + c72[9];
    const float v109 = c72[2] + c72[10];
    const float v110 = c72[3] + c72[11];
    const float v111 = c72[4] + c72[12];
    const float v112 = c72[5] + c72[13];
    const float v113 = c72[6] + c72[14];
    const float v114 = c72[7] + c72[15];
    const float v115 = v107 + v111;
    const float v116 = v108 + v112;
    const float v117 = v109 + v113;
    const float v118 = v110 + v114;
    const float v119 = v115 + v117;
    const float v120 = v116 + v118;
    const float v121 = v119 + v120;
    const float v122 = c73[0] + c73[8];
    const float v123 = c73[1] + c73[9];
    const float v124 = c73[2] + c73[10];
    const float v125 = c73[3] + c73[11];
    const float v126 = c73[4] + c73[12];
    const float v127 = c73[5] + c73[13];
    const float v128 = c73[6] + c73[14];
    const float v129 = c73[7] + c73[15];
    const float v130 = v122 + v126;
    const float v131 = v123 + v127;
    const float v132 = v124 + v128;
    const float v133 = v125 + v129;
    const float v134 = v130 + v132;
    const float v135 = v131 + v133;
    const float v136 = v134 + v135;
    const float v137 = p3[o0_2];
    const float v138 = p4[o0_2];
    const float v139 = v138 / v121;
    const bool aligned140 = dg_aligned<16>(p2 + 10 * o0_2);
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left141 = (int)(10 - e);
      dg_vec<float, 16> y142;
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left141) {
          const dg_index i = e + v;
          const float v143 = v139 * k74[r].x[v];
          const long long v144 = i;
          const bool v145 = v3 == v144;
          const float v146 = v145 ? v137 : 0x0p+0f;
          const float v147 = v146 + v143;
          y142.x[v] = v147;
        }
      }
      dg_write<16>(p2 + (10 * o0_2 + e), y142, aligned140, left141);
    }
    if (t == 0) {
      const float v148 = v121 + v121;
      const float v149 = v121 * 0x1p+23f;
      const bool v150 = v121 < 0x1p-126f;
      const float v151 = v150 ? v149 : v121;
      const int v152 = __float_as_int(v151);
      const int v153 = (int)((unsigned)v152 - (unsigned)1059760811);
      const int v154 = (int)(v153 & (-8388608));
      const int v155 = (int)((unsigned)v152 - (unsigned)v154);
      const float v156 = __int_as_float(v155);
      const float v157 = v156 - 0x1p+0f;
      const float v158 = v157 * v157;
      const float v159 = fmaf((-0x1.03037ap-3f), v157, 0x1.1ee68ap-3f);
      const float v160 = fmaf(v159, v157, (-0x1.f56284p-4f));
      const float v161 = fmaf(v160, v157, 0x1.1eb8dep-3f);
      const float v162 = fmaf(v161, v157, (-0x1.55884ep-3f));
      const float v163 = fmaf(v162, v157, 0x1.99d268p-3f);
      const float v164 = fmaf(v163, v157, (-0x1.ffff6ap-3f));
      const float v165 = fmaf(v164, v157, 0x1.5555p-2f);
      const float v166 = fmaf(v165, v157, (-0x1p-1f));
      const float v167 = fmaf(v166, v158, v157);
      const float v168 = v150 ? (-0x1.7p+4f) : 0x0p+0f;
      const int v169 = (int)(v154 >> 23);
      const float v170 = (float)v169;
      const float v171 = v170 + v168;
      const float v172 = fmaf(v171, 0x1.62e43p-1f, v167);
      const bool v173 = v121 < __int_as_float(0x7f800000);
      const float v174 = v173 ? v172 : v148;
      const bool v175 = v121 < 0x0p+0f;
      const float v176 = v175 ? __int_as_float(0x7fc00000) : v174;
      const bool v177 = v121 == 0x0p+0f;
      const float v178 = v177 ? __int_as_float(0xff800000) : v176;
      const float v179 = v178 - v136;
      const bool v180 = p6[o0_2] != 0;
      const float v181 = v180 ? v179 : 0x0p+0f;
      p5[o0_2] = v181;
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
    float c2[4];
    #pragma unroll
    for (int v = 0; v < 4; ++v) c2[v] = (-0x0p+0f);
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
