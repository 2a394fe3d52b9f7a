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
  int failed_code;
  if (dg_failed(error, failed_code) && failed_code != 0) return;
  const dg_unsigned rows = 32;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 128 + threadIdx.x; row < rows; row += (dg_unsigned)gridDim.x * 128) {
    const dg_index o0_1 = row;
    const long long v2 = p0[o0_1];
    if ((dg_word)v2 >= (dg_word)10) {
      if (t == 0) dg_fail(error, 0, v2);
      continue;
    }
    float c3[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c3[v] = __int_as_float(0xff800000);
    const bool aligned5 = dg_aligned<16>(p1 + 10 * o0_1);
    dg_vec<float, 16> k4[1];
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      k4[r] = dg_read<16>(p1 + (10 * o0_1 + e), aligned5, (int)(10 - e));
    }
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left6 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left6) {
          const dg_index i = e + v;
          const bool v7 = c3[v] != c3[v];
          const bool v8 = c3[v] >= k4[r].x[v];
          const bool v9 = (bool)(v8 | v7);
          const float v10 = v9 ? c3[v] : k4[r].x[v];
          c3[v] = v10;
        }
      }
    }
    const bool v11 = c3[0] != c3[0];
    const bool v12 = c3[0] >= c3[8];
    const bool v13 = (bool)(v12 | v11);
    const float v14 = v13 ? c3[0] : c3[8];
    const bool v15 = c3[1] != c3[1];
    const bool v16 = c3[1] >= c3[9];
    const bool v17 = (bool)(v16 | v15);
    const float v18 = v17 ? c3[1] : c3[9];
    const bool v19 = c3[2] != c3[2];
    const bool v20 = c3[2] >= c3[10];
    const bool v21 = (bool)(v20 | v19);
    const float v22 = v21 ? c3[2] : c3[10];
    const bool v23 = c3[3] != c3[3];
    const bool v24 = c3[3] >= c3[11];
    const bool v25 = (bool)(v24 | v23);
    const float v26 = v25 ? c3[3] : c3[11];
    const bool v27 = c3[4] != c3[4];
    const bool v28 = c3[4] >= c3[12];
    const bool v29 = (bool)(v28 | v27);
    const float v30 = v29 ? c3[4] : c3[12];
    const bool v31 = c3[5] != c3[5];
    const bool v32 = c3[5] >= c3[13];
    const bool v33 = (bool)(v32 | v31);
    const float v34 = v33 ? c3[5] : c3[13];
    const bool v35 = c3[6] != c3[6];
    const bool v36 = c3[6] >= c3[14];
    const bool v37 = (bool)(v36 | v35);
    const float v38 = v37 ? c3[6] : c3[14];
    const bool v39 = c3[7] != c3[7];
    const bool v40 = c3[7] >= c3[15];
    const bool v41 = (bool)(v40 | v39);
    const float v42 = v41 ? c3[7] : c3[15];
    const bool v43 = v14 != v14;
    const bool v44 = v14 >= v30;
    const bool v45 = (bool)(v44 | v43);
    const float v46 = v45 ? v14 : v30;
    const bool v47 = v18 != v18;
    const bool v48 = v18 >= v34;
    const bool v49 = (bool)(v48 | v47);
    const float v50 = v49 ? v18 : v34;
    const bool v51 = v22 != v22;
    const bool v52 = v22 >= v38;
    const bool v53 = (bool)(v52 | v51);
    const float v54 = v53 ? v22 : v38;
    const bool v55 = v26 != v26;
    const bool v56 = v26 >= v42;
    const bool v57 = (bool)(v56 | v55);
    const float v58 = v57 ? v26 : v42;
    const bool v59 = v46 != v46;
    const bool v60 = v46 >= v54;
    const bool v61 = (bool)(v60 | v59);
    const float v62 = v61 ? v46 : v54;
    const bool v63 = v50 != v50;
    const bool v64 = v50 >= v58;
    const bool v65 = (bool)(v64 | v63);
    const float v66 = v65 ? v50 : v58;
    const bool v67 = v62 != v62;
    const bool v68 = v62 >= v66;
    const bool v69 = (bool)(v68 | v67);
    const float v70 = v69 ? v62 : v66;
    float c71[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c71[v] = (-0x0p+0f);
    float c72[16];
    #pragma unroll
    for (int v = 0; v < 16; ++v) c72[v] = (-0x0p+0f);
    dg_vec<float, 16> k73[1];
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left74 = (int)(10 - e);
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left74) {
          const dg_index i = e + v;
          const float v75 = k4[r].x[v] - v70;
          const bool v76 = v75 > 0x1.64p+6f;
          const float v77 = v76 ? 0x1.64p+6f : v75;
          const bool v78 = v77 < (-0x1.ap+6f);
          const float v79 = v78 ? 0x0p+0f : v77;
          const float v80 = fmaf(v79, 0x1.715476p+0f, 0x1.8p+23f);
          const int v81 = __float_as_int(v80);
          const int v82 = (int)((unsigned)v81 << (unsigned)22);
          const int v83 = (int)(v82 & (-8388608));
          const int v84 = (int)((unsigned)v81 << (unsigned)23);
          const int v85 = (int)((unsigned)v84 - (unsigned)v83);
          const int v86 = (int)((unsigned)v85 + (unsigned)1065353216);
          const float v87 = __int_as_float(v86);
          const int v88 = (int)((unsigned)v83 + (unsigned)1065353216);
          const float v89 = __int_as_float(v88);
          const float v90 = v80 - 0x1.8p+23f;
          const float v91 = fmaf(v90, (-0x1.62e4p-1f), v79);
          const float v92 = fmaf(v90, (-0x1.7f7d1cp-20f), v91);
          const float v93 = fmaf(0x1.6d5168p-10f, v92, 0x1.123e4cp-7f);
          const float v94 = fmaf(v93, v92, 0x1.5554e4p-5f);
          const float v95 = fmaf(v94, v92, 0x1.55548ap-3f);
          const float v96 = fmaf(v95, v92, 0x1p-1f);
          const float v97 = fmaf(v96, v92, 0x1p+0f);
          const float v98 = fmaf(v97, v92, 0x1p+0f);
          const float v99 = v98 * v89;
          const float v100 = v99 * v87;
          const float v101 = v78 ? 0x0p+0f : v100;
          k73[r].x[v] = v101;
          const float v102 = c71[v] + v101;
          const long long v103 = i;
          const bool v104 = v2 == v103;
          const float v105 = v104 ? v75 : 0x0p+0f;
          const float v106 = c72[v] + v105;
          c71[v] = v102;
          c72[v] = v106;
        }
      }
    }
    const float v107 = c71[0] + c71[8];
    const float v108 = c71[1] + c71[9];
    const float v109 = c71[2] + c71[10];
    const float v110 = c71[3] + c71[11];
    const float v111 = c71[4] + c71[12];
    const float v112 = c71[5] + c71[13];
    const float v113 = c71[6] + c71[14];
    const float v114 = c71[7] + c71[15];
    const float v115 = v107 + v111;
    const float v116 = v108 + v112;
    const float v117 = v109 + v113;
    const float v118 = v110 + v114;
    const float v119 = v115 + v117;
    const float v120 = v116 + v118;
    const float v121 = v119 + v120;
    const float v122 = c72[0] + c72[8];
    const float v123 = c72[1] + c72[9];
    const float v124 = c72[2] + c72[10];
    const float v125 = c72[3] + c72[11];
    const float v126 = c72[4] + c72[12];
    const float v127 = c72[5] + c72[13];
    const float v128 = c72[6] + c72[14];
    const float v129 = c72[7] + c72[15];
    const float v130 = v122 + v126;
    const float v131 = v123 + v127;
    const float v132 = v124 + v128;
    const float v133 = v125 + v129;
    const float v134 = v130 + v132;
    const float v135 = v131 + v133;
    const float v136 = v134 + v135;
    const float v137 = p3[o0_1];
    const float v138 = p4[o0_1];
    const float v139 = v138 / v121;
    const bool aligned140 = dg_aligned<16>(p2 + 10 * o0_1);
    {
      const int r = 0;
      const dg_index e = r * 16 + t * 16;
      const int left141 = (int)(10 - e);
      dg_vec<float, 16> y142;
      #pragma unroll
      for (int v = 0; v < 16; ++v) {
        if (v < left141) {
          const dg_index i = e + v;
          const float v143 = v139 * k73[r].x[v];
          const long long v144 = i;
          const bool v145 = v2 == v144;
          const float v146 = v145 ? v137 : 0x0p+0f;
          const float v147 = v146 + v143;
          y142.x[v] = v147;
        }
      }
      dg_write<16>(p2 + (10 * o0_1 + e), y142, aligned140, left141);
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
      const bool v180 = p6[o0_1] != 0;
      const float v181 = v180 ? v179 : 0x0p+0f;
      p5[o0_1] = v181;
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
