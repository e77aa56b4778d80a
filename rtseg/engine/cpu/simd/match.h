// `Match` (rtseg/sam2/match.py): unit vectors of cells, and the comparison of each with those of a remembered frame.
#pragma once

#include "dot.h"

namespace {

constexpr float UNIT = 32767;  // the int16 of 1: a product of two unit vectors stays below 2^31
constexpr float FADED = -24;   // powers of 2 below the most similar: what is left out is less than 1e-4 in all

#if RT_AVX512
inline bool any_above(F x, F y) { return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ); }
#else
inline bool any_above(F x, F y) {
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)));
}
#endif

// One row y of unit vectors at twice the `side` of `top`: those of `mid` plus `top` resized (bilinear), d channels.
inline void unit_cells(const float* mid, const float* top, int side, int d, int y, float* out) {
    auto nearest = [&](int i) { return i / 2; };
    auto other = [&](int i) { return std::min(std::max(i / 2 + (i % 2 ? 1 : -1), 0), side - 1); };
    const float *one = top + long(nearest(y)) * side * d, *two = top + long(other(y)) * side * d;
    for (int x = 0; x < 2 * side; x++) {
        const long a = long(nearest(x)) * d, b = long(other(x)) * d, at = (long(y) * 2 * side + x) * d;
        F squares = set(0.f);
        for (int i = 0; i < d; i += LANES) {
            const F upper = fma(load(one + a + i), set(.75f), mul(load(one + b + i), set(.25f)));
            const F lower = fma(load(two + a + i), set(.75f), mul(load(two + b + i), set(.25f)));
            const F v = add(load(mid + at + i), fma(upper, set(.75f), mul(lower, set(.25f))));
            squares = fma(v, v, squares);
            store(out + at + i, v);
        }
        const F shorter = set(1.f / std::max(std::sqrt(sum_of(squares)), 1e-12f));
        for (int i = 0; i < d; i += LANES) store(out + at + i, mul(load(out + at + i), shorter));
    }
}

// Unit vectors [d, n], channel by channel, as a B of d rows and n columns (a multiple of 16), from column j to j + 15.
inline void pack_cells(const float* cells, int n, int d, int kind, int j, char* out) {
    const int panel = j / (PANEL * LANES), width = std::min(PANEL * LANES, n - panel * PANEL * LANES);
    const long start = long(panel) * PANEL * LANES * d;
    const int column = j % (PANEL * LANES);
    auto q = [&](int i) { return rounded(mul(load(cells + long(i) * n + j), set(UNIT))); };
    for (int i = 0; kind == F32 && i < d; i++)
        store((float*)out + start + long(i) * width + column, load(cells + long(i) * n + j));
    for (int i = 0; kind != F32 && i < d; i += 2)
        istore((int16_t*)out + start + (long(i / 2) * width + column) * 2,
               ior(iand(q(i), iset(0xffff)), ileft<16>(q(i + 1))));
}

// Some cells against all that are remembered: each object's mask copied by softmax, and the largest similarity.
struct Matching {
    std::vector<int16_t> rounded_cells;
    std::vector<float> scores;

    // `masks`: [n] of each object; `out` of each object: copied masks, and `apart` numbers later the similarities.
    void run(const float* cells, int rows, const char* keys, const float* const* masks, int objects, int n, int d,
             int kind, float scale, float* const* out, int first, int apart) {
        scores.resize(size_t(QUERIES) * n);
        float* to = scores.data();
        F top[QUERIES];
        for (int r = 0; r < rows; r++) top[r] = set(-INF);
        auto keep = [&](int r, int c, F v) {
            top[r] = most(top[r], v);
            store(to + long(r) * n + c, v);
        };
        if (kind == F32) {
            gemm<F32Dot>(cells, long(d) * 4, keys, rows, n, d, keep);
        } else {
            rounded_cells.resize(size_t(QUERIES) * d);
            for (int i = 0; i < rows * d; i += LANES)
                store_i16(&rounded_cells[i], rounded(mul(load(cells + i), set(UNIT))));
            gemm<Int16Dot>(rounded_cells.data(), long(d) * 2, keys, rows, n, d / 2,
                           [&](int r, int c, I sum) { keep(r, c, floats(sum)); });
        }
        const float unit = kind == F32 ? 1.f : 1.f / (UNIT * UNIT), base2 = scale * unit * 1.44269504f;
        for (int r = 0; r < rows; r++) {
            const float seen = most_of(top[r]);
            for (int b = 0; b < objects; b++) out[b][first + r + apart] = seen * unit;
            const float* row = to + long(r) * n;
            int b = 0;
            for (; b + 4 <= objects; b += 4) weigh<4>(row, masks + b, n, seen, base2, out + b, first + r);
            for (; b < objects; b++) weigh<1>(row, masks + b, n, seen, base2, out + b, first + r);
        }
    }

    template <int B>
    static void weigh(const float* scores, const float* const* masks, int n, float top, float base2, float* const* out,
                      int at) {
        const F least_seen = set(top + FADED / base2), steep = set(base2), shift = set(top * base2);
        F total = set(0.f), sum[B];
        const float* mask[B];
        for (int b = 0; b < B; b++) sum[b] = total, mask[b] = masks[b];
        for (int c = 0; c < n; c += LANES) {
            const F s = load(scores + c);
            if (!any_above(s, least_seen)) continue;
            const F e = exp2_of(fms(s, steep, shift));
            total = add(total, e);
            for (int b = 0; b < B; b++) sum[b] = fma(e, load(mask[b] + c), sum[b]);
        }
        const float share = 1.f / sum_of(total);
        for (int b = 0; b < B; b++) out[b][at] = sum_of(sum[b]) * share;
    }
};

}  // namespace
