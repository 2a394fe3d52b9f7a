extern "C" __global__ void __launch_bounds__(128) k_normalised_rows_0(float* __restrict__ p0, float* __restrict__ p1) {
  const int t = threadIdx.x & 15;
  const unsigned team = 0xffffu << (threadIdx.x & 16);
  const dg_unsigned rows = 2000;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 8 + threadIdx.x / 16; row < rows; row += (dg_unsigned)gridDim.x * 8) {
    const dg_index o0_1 = row;
    float c2[4];
    #pragma unroll
    for (int v = 0; v < 4; ++v) c2[v] = (-0x0p+0f);
    const bool aligned4 = dg_aligned<4>(p0 + 100 * o0_1);
    dg_vec<float, 4> k3[2];
    #pragma unroll
    for (int r = 0; r < 1; ++r) {
      const dg_index e = r * 64 + t * 4;
      k3[r] = dg_read<4>(p0 + (100 * o0_1 + e), aligned4, 4);
    }
    {
      const int r = 1;
      const dg_index e = r * 64 + t * 4;
      k3[r] = dg_read<4>(p0 + (100 * o0_1 + e), aligned4, (int)(100 - e));
    }
    #pragma unroll
    for (int r = 0; r < 1; ++r) {
      const dg_index e = r * 64 + t * 4;
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        const dg_index i = e + v;
        const float v5 = c2[v] + k3[r].x[v];
        c2[v] = v5;
      }
    }
    {
      const int r = 1;
      const dg_index e = r * 64 + t * 4;
      if (e < 100) {
        #pragma unroll
        for (int v = 0; v < 4; ++v) {
          const dg_index i = e + v;
          const float v6 = c2[v] + k3[r].x[v];
          c2[v] = v6;
        }
      }
    }
    const float v7 = (t & 8) ? c2[2] : c2[0];
    const float v8 = (t & 8) ? c2[3] : c2[1];
    const float v9 = (t & 8) ? c2[0] : c2[2];
    const float v10 = (t & 8) ? c2[1] : c2[3];
    const float v11 = __shfl_xor_sync(team, v9, 8);
    const float v12 = __shfl_xor_sync(team, v10, 8);
    const float v13 = v7 + v11;
    const float v14 = v8 + v12;
    const float v15 = (t & 4) ? v14 : v13;
    const float v16 = (t & 4) ? v13 : v14;
    const float v17 = __shfl_xor_sync(team, v16, 4);
    const float v18 = v15 + v17;
    const float v19 = __shfl_xor_sync(team, v18, 2);
    const float v20 = v18 + v19;
    const float v21 = __shfl_xor_sync(team, v20, 1);
    const float v22 = v20 + v21;
    const float v23 = __shfl_xor_sync(team, v22, 8);
    const float v24 = v22 + v23;
    const float v25 = __shfl_xor_sync(team, v24, 4);
    const float v26 = v24 + v25;
    float c27[4];
    #pragma unroll
    for (int v = 0; v < 4; ++v) c27[v] = (-0x0p+0f);
    const float v28 = v26 / 0x1.9p+6f;
    #pragma unroll
    for (int r = 0; r < 1; ++r) {
      const dg_index e = r * 64 + t * 4;
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        const dg_index i = e + v;
        const float v29 = k3[r].x[v] - v28;
        const float v30 = v29 * v29;
        const float v31 = c27[v] + v30;
        c27[v] = v31;
      }
    }
    {
      const int r = 1;
      const dg_index e = r * 64 + t * 4;
      if (e < 100) {
        #pragma unroll
        for (int v = 0; v < 4; ++v) {
          const dg_index i = e + v;
          const float v32 = k3[r].x[v] - v28;
          const float v33 = v32 * v32;
          const float v34 = c27[v] + v33;
          c27[v] = v34;
        }
      }
    }
    const float v35 = (t & 8) ? c27[2] : c27[0];
    const float v36 = (t & 8) ? c27[3] : c27[1];
    const float v37 = (t & 8) ? c27[0] : c27[2];
    const float v38 = (t & 8) ? c27[1] : c27[3];
    const float v39 = __shfl_xor_sync(team, v37, 8);
    const float v40 = __shfl_xor_sync(team, v38, 8);
    const float v41 = v35 + v39;
    const float v42 = v36 + v40;
    const float v43 = (t & 4) ? v42 : v41;
    const float v44 = (t & 4) ? v41 : v42;
    const float v45 = __shfl_xor_sync(team, v44, 4);
    const float v46 = v43 + v45;
    const float v47 = __shfl_xor_sync(team, v46, 2);
    const float v48 = v46 + v47;
    const float v49 = __shfl_xor_sync(team, v48, 1);
    const float v50 = v48 + v49;
    const float v51 = __shfl_xor_sync(team, v50, 8);
    const float v52 = v50 + v51;
    const float v53 = __shfl_xor_sync(team, v52, 4);
    const float v54 = v52 + v53;
    const float v55 = v54 / 0x1.9p+6f;
    const float v56 = v55 + 0x1.4f8b58p-17f;
    const float v57 = sqrtf(v56);
    const bool aligned58 = dg_aligned<4>(p1 + 100 * o0_1);
    #pragma unroll
    for (int r = 0; r < 1; ++r) {
      const dg_index e = r * 64 + t * 4;
      dg_vec<float, 4> y59;
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        const dg_index i = e + v;
        const float v60 = k3[r].x[v] - v28;
        const float v61 = v60 / v57;
        y59.x[v] = v61;
      }
      dg_write<4>(p1 + (100 * o0_1 + e), y59, aligned58, 4);
    }
    {
      const int r = 1;
      const dg_index e = r * 64 + t * 4;
      if (e < 100) {
        dg_vec<float, 4> y62;
        #pragma unroll
        for (int v = 0; v < 4; ++v) {
          const dg_index i = e + v;
          const float v63 = k3[r].x[v] - v28;
          const float v64 = v63 / v57;
          y62.x[v] = v64;
        }
        dg_write<4>(p1 + (100 * o0_1 + e), y62, aligned58, 4);
      }
    }
  }
}
