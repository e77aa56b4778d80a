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
    const float* scale;  // of each output; int16 and int8 only
    const float* bias;   // null: none
    int n, k, kind;      // outputs; inputs, padded to the group; Kind
    long stride() const { return long(k) * bytes_of(kind); }
    int steps() const { return k / group_of(kind); }
    int levels() const { return kind == INT8 ? 127 : levels_of(k); }
};

// Rows as a product wants them; int16 and int8 have a scale for each row, int8 also 128 * sum.
struct Rows {
    std::vector<char> data;
    std::vector<float> scale;
    std::vector<int> offset;
    void fit(int rows, int k, int kind) {
        data.resize(size_t(rows) * k * bytes_of(kind));
        scale.resize(rows);
        offset.resize(rows);
    }
};

// One row of floats to int16 or int8 of up to `levels`. Numbers past `k`, up to `padded`, are zero.
template <class Number, class Store>
inline void quantise_row(const float* x, int k, int padded, int levels, Number* out, Rows& to, int row, Store store) {
    F top16 = set(0.f);
    int i = 0;
    for (; i + LANES <= k; i += LANES) top16 = most(top16, absolute(load(x + i)));
    float top = most_of(top16);
    for (; i < k; i++) top = std::max(top, std::fabs(x[i]));
    const float inverse = top > 0 ? levels / top : 0.f;
    I sums = iset(0);
    int sum = 0;
    for (i = 0; i + LANES <= k; i += LANES) {
        const I q = rounded(mul(load(x + i), set(inverse)));
        if (sizeof(Number) == 1) sums = iadd(sums, q);
        store(out + i, q);
    }
    for (; i < k; i++) sum += out[i] = (Number)std::lrintf(x[i] * inverse);
    for (; i < padded; i++) out[i] = 0;
    to.scale[row] = top / levels;
    if (sizeof(Number) == 1) to.offset[row] = 128 * (sum + isum_of(sums));
}

inline void round_row(const float* x, int k, int padded, int kind, int levels, Rows& to, int row) {
    char* out = to.data.data() + size_t(row) * padded * bytes_of(kind);
    if (kind == INT16) {
        quantise_row(x, k, padded, levels, (int16_t*)out, to, row, [](int16_t* at, I q) { store_i16(at, q); });
    } else if (kind == INT8) {
        quantise_row(x, k, padded, levels, (int8_t*)out, to, row, [](int8_t* at, I q) { store_i8(at, q); });
    } else if (kind == F32) {
        std::memcpy(out, x, size_t(k) * 4);
    } else {
        int i = 0;
#if RT_BF16
        for (; i + LANES <= k; i += LANES) store((bf16*)out + i, load(x + i));
#endif
        for (; i < padded; i++) ((bf16*)out)[i] = i < k ? to_bf16(x[i]) : 0;
    }
}

inline void normalise(const float* x, int k, const Norm& norm, float* out) {
    F sum = set(0.f), squares = sum;
    for (int i = 0; i < k; i += LANES) sum = add(sum, load(x + i));
    const F mean = set(sum_of(sum) / k);
    for (int i = 0; i < k; i += LANES) {
        const F d = sub(load(x + i), mean);
        squares = fma(d, d, squares);
    }
    const F factor = set(1.f / std::sqrt(sum_of(squares) / k + norm.eps));
    for (int i = 0; i < k; i += LANES)
        store(out + i, fma(mul(sub(load(x + i), mean), factor), load(norm.gamma + i), load(norm.beta + i)));
}

struct Input {
    const void* x;
    long ld;
    int kind;  // 0 float, 1 half
    int k;     // numbers in a row, before padding
    Norm norm;
};

inline void take_rows(const Input& in, int first, int rows, const Linear& to, Rows& out) {
    out.fit(rows, to.k, to.kind);
    static thread_local std::vector<float> wide, normed;
    wide.resize(in.k + LANES), normed.resize(in.k + LANES);
    const int levels = to.levels();
    for (int r = 0; r < rows; r++) {
        const float* x = (const float*)in.x + (first + r) * in.ld;
        if (in.kind == 1 && sizeof(half) == 2) {
            const half* narrow = (const half*)in.x + (first + r) * in.ld;
            for (int i = 0; i < in.k; i += LANES) store(&wide[i], load(narrow + i));
            x = wide.data();
        }
        if (in.norm.gamma) {
            normalise(x, in.k, in.norm, normed.data());
            x = normed.data();
        }
        round_row(x, in.k, to.k, to.kind, levels, out, r);
    }
}

template <class Store>
inline void product(const Rows& a, int rows, const Linear& l, Store store) {
    auto biased = [&](int r, int c, F v) { store(r, c, l.bias ? add(v, load(l.bias + c)) : v); };
    auto unscaled = [&](int r, int c, I sum) {
        biased(r, c, mul(floats(sum), mul(set(a.scale[r]), load(l.scale + c))));
    };
    const char* data = a.data.data();
    if (l.kind == F32) return gemm<F32Dot>(data, l.stride(), l.weight, rows, l.n, l.steps(), biased);
    if (l.kind == INT16) return gemm<Int16Dot>(data, l.stride(), l.weight, rows, l.n, l.steps(), unscaled);
#if RT_BF16
    if (l.kind == BF16) return gemm<Bf16Dot>(data, l.stride(), l.weight, rows, l.n, l.steps(), biased);
#endif
    gemm<Int8Dot>(data, l.stride(), l.weight, rows, l.n, l.steps(),
                  [&](int r, int c, I sum) { unscaled(r, c, isub(sum, iset(a.offset[r]))); });
}

// last(activation(first(a))) of some rows
template <class Store>
inline void two_products(const Rows& a, int rows, const Linear& one, const Linear& two, int activation, Store store_) {
    static thread_local Rows b;
    static thread_local std::vector<float> hidden;
    b.fit(rows, two.k, two.kind);
#if RT_BF16
    if (two.kind == BF16) {
        bf16* to = (bf16*)b.data.data();  // a thread's own variable is looked up by a call at every use
        const int width = two.k;
        product(a, rows, one, [=](int r, int c, F v) { store(to + size_t(r) * width + c, activate(v, activation)); });
        return product(b, rows, two, store_);
    }
#endif
    const bool plain = two.kind == F32;
    if (!plain) hidden.resize(size_t(rows) * one.n);
    float* to = plain ? (float*)b.data.data() : hidden.data();
    const int width = one.n, levels = two.levels(), at_once = activation == GELU ? NONE : activation;
    product(a, rows, one, [=](int r, int c, F v) { store(to + size_t(r) * width + c, activate(v, at_once)); });
    for (int r = 0; r < rows; r++) {
        float* row = to + size_t(r) * width;
        if (activation == GELU) gelu_row(row, width);
        if (!plain) round_row(row, width, two.k, two.kind, levels, b, r);
    }
    product(b, rows, two, store_);
}

struct Output {
    void* out;
    long ld;
    int kind;  // 0 float, 1 half
    int activation;
    const float* added;  // null: none; the residual, or a table
    long ld_added;
    int period;  // rows of the table, which begins anew after them
};

inline void put(const Output& o, long row, int col, F v) {
    v = activate(v, o.activation);
    if (o.added) {
        const long at = row < o.period ? row : row % o.period;
        v = add(v, load(o.added + at * o.ld_added + col));
    }
    if (o.kind == 0)
        store((float*)o.out + row * o.ld + col, v);
    else
        store((half*)o.out + row * o.ld + col, v);
}

inline int chunk_of(int rows) {
    if (rows < 1) return ROWS;
    const int threads = rt::threads(), share = (rows + threads - 1) / threads;
    const int pieces = (share + CHUNK - 1) / CHUNK;
    return up((share + pieces - 1) / pieces, ROWS);
}

// Call work(first row, rows) for chunks of rows, shared out among the threads.
template <class Work>
inline void by_chunks(int rows, Work work) {
    const int chunk = chunk_of(rows);
    rt::parallel((rows + chunk - 1) / chunk, [&](int i) { work(i * chunk, std::min(chunk, rows - i * chunk)); });
}

}  // namespace
