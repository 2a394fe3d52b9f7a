extern "C" __global__ void __launch_bounds__(64) k_blocked_sum_0(float* __restrict__ p0, float* __restrict__ p1) {
  const int t = threadIdx.x;
  const dg_unsigned rows = 5;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x; row < rows; row += (dg_unsigned)gridDim.x) {
    const dg_index b_1 = row;
    __syncthreads();
    float c2 = (-0x0p+0f);
    const dg_index length3 = dg_min(4096, (20000 + -4096 * b_1));
    const dg_index whole4 = length3 - (length3 & 63);
    #pragma unroll 16
    for (dg_index e = t; e < whole4; e += 64) {
      const float v5 = p0[(4096 * b_1 + e)];
      const float v6 = c2 + v5;
      c2 = v6;
    }
    if (whole4 < length3) {
      const dg_index e = whole4 + t;
      if (e < length3) {
        const float v7 = p0[(4096 * b_1 + e)];
        const float v8 = c2 + v7;
        c2 = v8;
      }
    }
    __shared__ float s9[64];
    s9[t] = c2;
    __syncthreads();
    const float v10 = s9[t ^ 32];
    const float v11 = c2 + v10;
    const float v12 = __shfl_xor_sync(0xffffffffu, v11, 16);
    const float v13 = v11 + v12;
    const float v14 = __shfl_xor_sync(0xffffffffu, v13, 8);
    const float v15 = v13 + v14;
    const float v16 = __shfl_xor_sync(0xffffffffu, v15, 4);
    const float v17 = v15 + v16;
    const float v18 = __shfl_xor_sync(0xffffffffu, v17, 2);
    const float v19 = v17 + v18;
    const float v20 = __shfl_xor_sync(0xffffffffu, v19, 1);
    const float v21 = v19 + v20;
    if (t == 0) {
      p1[b_1] = v21;
    }
  }
}

extern "C" __global__ void __launch_bounds__(128) k_blocked_sum_1(float* __restrict__ p0, float* __restrict__ p1) {
  const int t = 0;
  const dg_unsigned rows = 1;
  for (dg_unsigned row = (dg_unsigned)blockIdx.x * 128 + threadIdx.x; row < rows; row += (dg_unsigned)gridDim.x * 128) {
    float c1[8];
    #pragma unroll
    for (int v = 0; v < 8; ++v) c1[v] = (-0x0p+0f);
    const bool aligned2 = dg_aligned<8>(p0);
    {
      const dg_index e = t * 8;
      const int left3 = (int)(5 - e);
      const dg_vec<float, 8> x4 = dg_read<8>(p0 + e, aligned2, left3);
      #pragma unroll
      for (int v = 0; v < 8; ++v) {
        if (v < left3) {
          const dg_index i = e + v;
          const float v5 = c1[v] + x4.x[v];
          c1[v] = v5;
        }
      }
    }
    const float v6 = c1[0] + c1[4];
    const float v7 = c1[1] + c1[5];
    const float v8 = c1[2] + c1[6];
    const float v9 = c1[3] + c1[7];
    const float v10 = v6 + v8;
    const float v11 = v7 + v9;
    const float v12 = v10 + v11;
    if (t == 0) {
      p1[0] = v12;
    }
  }
}
