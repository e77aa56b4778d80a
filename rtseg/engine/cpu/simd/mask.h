// What surrounds a mask: the memory encoder's convolutions on the way in, the decoder's upscaling on the way out.
#pragma once

#include "layers.h"

extern "C" {

// The scaled mask that SAM 2's memory encoder sees, with a border of one zero: [size + 2, size + 2], from logits
// [size / 4, size / 4], interpolated linearly between pixel centres. `certain`: what is positive is 1, all else 0.
void RT(mask)(const float* logits, int size, int certain, float* out) {
    const int low = size / 4, wide = size + 2;
    std::memset(out, 0, sizeof(float) * wide);
    std::memset(out + long(wide) * (size + 1), 0, sizeof(float) * wide);
    rt::parallel(size, [&](int y) {
        static thread_local std::vector<float> blended;
        blended.resize(low + 2);
        const float at = std::max(0.f, (y + 0.5f) / 4 - 0.5f), part = at - int(at);
        const float *one = logits + long(int(at)) * low, *two = logits + long(std::min(int(at) + 1, low - 1)) * low;
        for (int x = 0; x < low; x++) blended[x + 1] = one[x] + part * (two[x] - one[x]);
        blended[0] = blended[1], blended[low + 1] = blended[low];
        float* row = out + long(wide) * (y + 1);
        row[0] = row[size + 1] = 0;
        for (int x = 0; x < low; x++) {
            const float before = blended[x], here = blended[x + 1], after = blended[x + 2];
            row[4 * x + 1] = here + 0.375f * (before - here), row[4 * x + 2] = here + 0.125f * (before - here);
            row[4 * x + 3] = here + 0.125f * (after - here), row[4 * x + 4] = here + 0.375f * (after - here);
        }
        for (int x = 1; x <= size; x += LANES) {
            const F v = load(row + x), sign = positive(v, set(10.f), set(-10.f));
            // 20 sigmoid(v) - 10 = 10 (1 - e) / (1 + e) with e = exp(-|v|), and the sign of v.
            const F e = exp2_of(mul(absolute(v), set(-1.44269504f)));
            store(row + x, certain ? sign : mul(sign, div(sub(set(1.f), e), add(set(1.f), e))));
        }
    });
}

// The first convolution of the mask (3x3, stride 2, 1 to 4 channels), its LayerNorm and GELU, from what `rt_mask` gave:
// half [size / 2, size / 2, 4]. Weights [4, 9].
void RT(mask_stem)(const float* mask, int size, const float* weight, const float* bias, const Norm* norm, half* out) {
    const int side = size / 2, wide = size + 2;
    rt::parallel(side, [&](int y) {
        for (int x = 0; x < side; x += LANES) {
            F sum[4];
            for (int c = 0; c < 4; c++) sum[c] = set(bias[c]);
            for (int tap = 0; tap < 3; tap++) {
                const float* row = mask + long(wide) * (2 * y + tap) + 2 * x;
                const F seen[3] = {evens(row), evens(row + 1), evens(row + 2)};
                for (int k = 0; k < 3; k++)
                    for (int c = 0; c < 4; c++) sum[c] = fma(seen[k], set(weight[c * 9 + tap * 3 + k]), sum[c]);
            }
            const F mean = mul(set(0.25f), add(add(sum[0], sum[1]), add(sum[2], sum[3])));
            F squares = set(0.f);
            for (auto& s : sum) s = sub(s, mean), squares = fma(s, s, squares);
            const F spread = root(fma(squares, set(0.25f), set(norm->eps)));
            alignas(64) half found[4][LANES];
            for (int c = 0; c < 4; c++)
                store(found[c], gelu(fma(div(sum[c], spread), set(norm->gamma[c]), set(norm->beta[c]))));
            half* to = out + (long(y) * side + x) * 4;
            for (int i = 0; i < LANES; i++)
                for (int c = 0; c < 4; c++) to[i * 4 + c] = found[c][i];
        }
    });
}

// A 3x3 convolution of stride 2 and padding 1 on half [side, side, c], with LayerNorm and GELU: half
// [side / 2, side / 2, n]. Weights [n, 9 * c], packed; tap by tap.
void RT(convolution)(const Linear* l, const half* x, int side, int c, const Norm* norm, half* out) {
    const int low = side / 2;
    by_chunks(low * low, [&](int first, int n) {
        static thread_local Rows a;
        static thread_local std::vector<float> found;
        a.fit(n, l->k, l->kind);
        static thread_local std::vector<half> taps;
        found.resize(size_t(n) * l->n);
        taps.resize(l->k);
        for (int r = 0; r < n; r++) {
            half *to = l->kind == INT16 ? taps.data() : (half*)a.data.data() + size_t(r) * l->k, *begin = to;
            const int y = 2 * ((first + r) / low) - 1, z = 2 * ((first + r) % low) - 1;
            for (int v = y; v < y + 3; v++, to += 3 * c) {  // three taps are neighbours in memory, too
                const int missing = z < 0 || v < 0 ? (v < 0 ? 3 : 1) * c : 0;
                std::fill_n(to, missing, half(0));
                if (missing < 3 * c)
                    std::memcpy(to + missing, x + (long(v) * side + z) * c + missing, size_t(3 * c - missing) * sizeof(half));
            }
#if !RT_BF16
            if (l->kind == INT16) round_row(begin, l->k, l->k, INT16, l->levels(), a, r);
#else
            (void)begin;  // bf16 already
#endif
        }
        float* to_found = found.data();
        const int width = l->n;
        product(a, n, *l, [=](int r, int col, F v) { store(to_found + size_t(r) * width + col, v); });
        for (int r = 0; r < n; r++) {
            float* row = to_found + size_t(r) * width;
            normalise(row, l->n, *norm, row);
            for (int i = 0; i < l->n; i += LANES) store(out + long(first + r) * l->n + i, gelu(load(row + i)));
        }
    });
}

// gelu(norm(x spread to four pixels a cell + added)): x [side, side, 2 * 2 * c], added [2 side, 2 side, c]. As half
// rows; or, with `mix` [c], as its product with them: float [2 side, 2 side].
void RT(upscale)(const float* x, int side, int c, const float* added, const Norm* norm, const float* mix, void* out) {
    rt::parallel(2 * side, [&](int y) {
        for (int z = 0; z < 2 * side; z++) {
            const float* from = x + ((long(y / 2) * side + z / 2) * 4 + y % 2 * 2 + z % 2) * c;
            const long cell = long(y) * 2 * side + z;
            float row[512];
            for (int i = 0; i < c; i += LANES) store(row + i, add(load(from + i), load(added + cell * c + i)));
            if (norm->gamma) normalise(row, c, *norm, row);
            F sum = set(0.f);
            for (int i = 0; i < c; i += LANES) {
                const F v = gelu(load(row + i));
                if (mix)
                    sum = fma(v, load(mix + i), sum);
                else
                    store((half*)out + cell * c + i, v);
            }
            if (mix) ((float*)out)[cell] = sum_of(sum);
        }
    });
}

}  // extern "C"
