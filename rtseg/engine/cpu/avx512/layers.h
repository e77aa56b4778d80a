// Linear layers: float32 rows in, LayerNorm and rounding on the way, bias, activation and residual after the product.
#pragma once

#include "dot.h"

namespace {

struct Norm {
    const float* gamma;  // null: none
    const float* beta;
    float eps;
};

struct Linear {
    const void* weight;  // packed
    const float* scale;  // of each output, int8 only
    const float* bias;   // null: none
    int n, k, kind;      // outputs; inputs, padded to the group; Kind
};

// Rows as a product wants them: bf16, or int8 with a scale and 128 * sum for each row.
struct Rows {
    std::vector<char> data;
    std::vector<float> scale;
    std::vector<int> offset;
    void fit(int rows, int k, int kind) {
        data.resize(size_t(rows) * k * (kind == BF16 ? 2 : 1));
        scale.resize(rows);
        offset.resize(rows);
    }
};

// One row of floats to bf16 or int8. Numbers past `k`, up to `padded`, are zero.
inline void round_row(const float* x, int k, int padded, int kind, Rows& to, int row) {
    if (kind == BF16) {
        bf16* out = (bf16*)to.data.data() + size_t(row) * padded;
        int i = 0;
        for (; i + LANES <= k; i += LANES) store_bf16(out + i, _mm512_loadu_ps(x + i));
        for (; i < k; i++) out[i] = to_bf16(x[i]);
        for (; i < padded; i++) out[i] = 0;
        return;
    }
    int8_t* out = (int8_t*)to.data.data() + size_t(row) * padded;
    __m512 most = _mm512_setzero_ps();
    int i = 0;
    for (; i + LANES <= k; i += LANES) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
    float top = _mm512_reduce_max_ps(most);
    for (; i < k; i++) top = std::max(top, std::fabs(x[i]));
    const float inverse = top > 0 ? 127.f / top : 0.f;
    __m512i sums = _mm512_setzero_si512();
    int sum = 0;
    for (i = 0; i + LANES <= k; i += LANES) {
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));
        sums = _mm512_add_epi32(sums, q);
        _mm_storeu_si128((__m128i*)(out + i), _mm512_cvtepi32_epi8(q));
    }
    for (; i < k; i++) sum += out[i] = (int8_t)std::lrintf(x[i] * inverse);
    for (; i < padded; i++) out[i] = 0;
    to.scale[row] = top / 127.f;
    to.offset[row] = 128 * (sum + _mm512_reduce_add_epi32(sums));
}

inline void normalise(const float* x, int k, const Norm& norm, float* out) {
    __m512 sum = _mm512_setzero_ps(), squares = sum;
    for (int i = 0; i < k; i += LANES) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / k);
    for (int i = 0; i < k; i += LANES) {
        const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
    }
    const __m512 factor = _mm512_set1_ps(1.f / std::sqrt(_mm512_reduce_add_ps(squares) / k + norm.eps));
    for (int i = 0; i < k; i += LANES) {
        const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), factor);
        _mm512_storeu_ps(out + i, _mm512_fmadd_ps(d, _mm512_loadu_ps(norm.gamma + i), _mm512_loadu_ps(norm.beta + i)));
    }
}

struct Input {
    const void* x;
    long ld;
    int kind;  // 0 float, 1 bf16
    int k;     // numbers in a row, before padding
    Norm norm;
};

inline void take_rows(const Input& in, int first, int rows, const Linear& to, Rows& out) {
    out.fit(rows, to.k, to.kind);
    std::vector<float> wide(in.k), normed(in.k);
    for (int r = 0; r < rows; r++) {
        const float* x = (const float*)in.x + (first + r) * in.ld;
        if (in.kind == 1) {
            const bf16* narrow = (const bf16*)in.x + (first + r) * in.ld;
            for (int i = 0; i < in.k; i += LANES) _mm512_storeu_ps(&wide[i], load_bf16(narrow + i));
            x = wide.data();
        }
        if (in.norm.gamma) {
            normalise(x, in.k, in.norm, normed.data());
            x = normed.data();
        }
        round_row(x, in.k, to.k, to.kind, out, r);
    }
}

template <class Store>
inline void product(const Rows& a, int rows, const Linear& l, Store store) {
    if (l.kind == BF16) {
        gemm<Bf16Dot>((const bf16*)a.data.data(), l.k, (const bf16*)l.weight, rows, l.n, l.k,
                      [&](int r, int c, __m512 sum) {
                          store(r, c, l.bias ? _mm512_add_ps(sum, _mm512_loadu_ps(l.bias + c)) : sum);
                      });
    } else {
        gemm<Int8Dot>((const int8_t*)a.data.data(), l.k, (const int8_t*)l.weight, rows, l.n, l.k,
                      [&](int r, int c, __m512i sum) {
                          __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(a.offset[r])));
                          v = _mm512_mul_ps(v, _mm512_mul_ps(_mm512_set1_ps(a.scale[r]), _mm512_loadu_ps(l.scale + c)));
                          store(r, c, l.bias ? _mm512_add_ps(v, _mm512_loadu_ps(l.bias + c)) : v);
                      });
    }
}

struct Output {
    void* out;
    long ld;
    int kind;  // 0 float, 1 bf16
    int activation;
    const float* added;  // null: none; the residual, or a table
    long ld_added;
    int period;  // rows of the table, which begins anew after them
};

inline void put(const Output& o, long row, int col, __m512 v) {
    v = activate(v, o.activation);
    if (o.added) {
        const long at = row < o.period ? row : row % o.period;
        v = _mm512_add_ps(v, _mm512_loadu_ps(o.added + at * o.ld_added + col));
    }
    if (o.kind == 0)
        _mm512_storeu_ps((float*)o.out + row * o.ld + col, v);
    else
        store_bf16((bf16*)o.out + row * o.ld + col, v);
}

inline int chunk_of(int rows) {
    if (rows < 1) return ROWS;
    const int threads = omp_get_max_threads(), share = (rows + threads - 1) / threads;
    const int pieces = (share + CHUNK - 1) / CHUNK;
    return up((share + pieces - 1) / pieces, ROWS);
}

}  // namespace
