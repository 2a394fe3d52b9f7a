extern "C" __global__ void __launch_bounds__(64) k_blocked_sum_0(float* __restrict__ p0, float* __restrict__ p1) {
  const int t = threadIdx.x;
  const dg_unsigned rows = 5;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x; row < rows; row += (dg_unsigned)gridDim.x) {
    const dg_index b_1 = row;
    __syncthreads();
    float c2 = (-0x0p+0f);
    const dg_index whole3 = dg_min(4096, (20000 + -4096 * b_1)) - (dg_min(4096, (20000 + -4096 * b_1)) & 63);
    #pragma unroll 8
    for (dg_index e = t; e < whole3; e += 64) {
      const float v4 = p0[(4096 * b_1 + e)];
      const float v5 = c2 + v4;
      c2 = v5;
    }
    if (whole3 < dg_min(4096, (20000 + -4096 * b_1))) {
      const dg_index e = whole3 + t;
      if (e < dg_min(4096, (20000 + -4096 * b_1))) {
        const float v6 = p0[(4096 * b_1 + e)];
        const float v7 = c2 + v6;
        c2 = v7;
      }
    }
    __shared__ float s8[64];
    s8[t] = c2;
    __syncthreads();
    const float v9 = s8[t ^ 32];
    const float v10 = c2 + v9;
    const float v11 = __shfl_xor_sync(0xffffffffu, v10, 16);
    const float v12 = v10 + v11;
    const float v13 = __shfl_xor_sync(0xffffffffu, v12, 8);
    const float v14 = v12 + v13;
    const float v15 = __shfl_xor_sync(0xffffffffu, v14, 4);
    const float v16 = v14 + v15;
    const float v17 = __shfl_xor_sync(0xffffffffu, v16, 2);
    const float v18 = v16 + v17;
    const float v19 = __shfl_xor_sync(0xffffffffu, v18, 1);
    const float v20 = v18 + v19;
    if (t == 0) {
      p1[b_1] = v20;
    }
  }
}

extern "C" __global__ void __launch_bounds__(128) k_blocked_sum_1(float* __restrict__ p0, float* __restrict__ p1) {
  const int t = threadIdx.x & 15;
  const unsigned team = 0xffffu << (threadIdx.x & 16);
  const dg_unsigned rows = 1;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 8 + threadIdx.x / 16; row < rows; row += (dg_unsigned)gridDim.x * 8) {
    float c1[4] = {(-0x0p+0f), (-0x0p+0f), (-0x0p+0f), (-0x0p+0f)};
    const bool aligned2 = dg_aligned<4>(p0);
    {
      const dg_index e = t * 4;
      const int left3 = (int)(5 - e);
      const dg_vec<float, 4> x4 = dg_read<4>(p0 + e, aligned2, left3);
      #pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (v < left3) {
          const dg_index i = e + v;
          const float v5 = c1[v] + x4.x[v];
          c1[v] = v5;
        }
      }
    }
    const float v6 = (t & 8) ? c1[2] : c1[0];
    const float v7 = (t & 8) ? c1[3] : c1[1];
    const float v8 = (t & 8) ? c1[0] : c1[2];
    const float v9 = (t & 8) ? c1[1] : c1[3];
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
      p1[0] = v25;
    }
  }
}
