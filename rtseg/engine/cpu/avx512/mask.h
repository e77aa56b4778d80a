// What surrounds a mask: the memory encoder's convolutions on the way in, the decoder's upscaling on the way out.
#pragma once

#include "layers.h"

extern "C" {

// The scaled mask that SAM 2's memory encoder sees, with a border of one zero: [size + 2, size + 2], from logits
// [size / 4, size / 4], interpolated linearly between pixel centres. `certain`: what is positive is 1, all else 0.
void rt_mask(const float* logits, int size, int certain, float* out) {
    const int low = size / 4, wide = size + 2;
    std::memset(out, 0, sizeof(float) * wide);
    std::memset(out + long(wide) * (size + 1), 0, sizeof(float) * wide);
#pragma omp parallel for
    for (int y = 0; y < size; y++) {
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
            const __m512 v = _mm512_loadu_ps(row + x), ten = _mm512_set1_ps(10.f);
            const __m512 positive = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ),
                                                         _mm512_sub_ps(_mm512_setzero_ps(), ten), ten);
            // 20 sigmoid(v) - 10 = 10 (1 - e) / (1 + e) with e = exp(-|v|), and the sign of v.
            const __m512 e = exp2_of(_mm512_mul_ps(_mm512_abs_ps(v), _mm512_set1_ps(-1.44269504f)));
            const __m512 one_ = _mm512_set1_ps(1.f);
            const __m512 sure = _mm512_div_ps(_mm512_sub_ps(one_, e), _mm512_add_ps(one_, e));
            _mm512_storeu_ps(row + x, certain ? positive : _mm512_mul_ps(positive, sure));
        }
    }
}

// The first convolution of the mask (3x3, stride 2, 1 to 4 channels), its LayerNorm and GELU, from what `rt_mask` gave:
// bf16 [size / 2, size / 2, 4]. Weights [4, 9].
void rt_mask_stem(const float* mask, int size, const float* weight, const float* bias, const Norm* norm, bf16* out) {
    const int half = size / 2, wide = size + 2;
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
#pragma omp parallel for
    for (int y = 0; y < half; y++)
        for (int x = 0; x < half; x += LANES) {
            __m512 sum[4];
            for (int c = 0; c < 4; c++) sum[c] = _mm512_set1_ps(bias[c]);
            for (int tap = 0; tap < 3; tap++) {
                const float* row = mask + long(wide) * (2 * y + tap) + 2 * x;
                const __m512 a = _mm512_loadu_ps(row), b = _mm512_loadu_ps(row + LANES);
                const __m512 right = _mm512_permutex2var_ps(_mm512_loadu_ps(row + 2), even,
                                                            _mm512_maskz_loadu_ps(0x7fff, row + 2 + LANES));
                const __m512 seen[3] = {_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b), right};
                for (int k = 0; k < 3; k++)
                    for (int c = 0; c < 4; c++)
                        sum[c] = _mm512_fmadd_ps(seen[k], _mm512_set1_ps(weight[c * 9 + tap * 3 + k]), sum[c]);
            }
            const __m512 mean = _mm512_mul_ps(
                _mm512_set1_ps(0.25f), _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
            __m512 squares = _mm512_setzero_ps();
            for (auto& s : sum) s = _mm512_sub_ps(s, mean), squares = _mm512_fmadd_ps(s, s, squares);
            const __m512 spread =
                _mm512_sqrt_ps(_mm512_fmadd_ps(squares, _mm512_set1_ps(0.25f), _mm512_set1_ps(norm->eps)));
            alignas(32) bf16 found[4][LANES];
            for (int c = 0; c < 4; c++)
                store_bf16(found[c], gelu(_mm512_fmadd_ps(_mm512_div_ps(sum[c], spread), _mm512_set1_ps(norm->gamma[c]),
                                                          _mm512_set1_ps(norm->beta[c]))));
            bf16* to = out + (long(y) * half + x) * 4;
            for (int i = 0; i < LANES; i++)
                for (int c = 0; c < 4; c++) to[i * 4 + c] = found[c][i];
        }
}

// A 3x3 convolution of stride 2 and padding 1 on bf16 [side, side, c], with LayerNorm and GELU: bf16 [side / 2, side / 2, n].
// Weights [n, 9 * c], packed; tap by tap.
void rt_convolution(const Linear* l, const bf16* x, int side, int c, const Norm* norm, bf16* out) {
    const int half = side / 2, rows = half * half, chunk = chunk_of(rows);
#pragma omp parallel for schedule(dynamic)
    for (int first = 0; first < rows; first += chunk) {
        static thread_local Rows a;
        static thread_local std::vector<float> found;
        const int n = std::min(chunk, rows - first);
        a.fit(n, l->k, BF16);
        found.resize(size_t(n) * l->n);
        for (int r = 0; r < n; r++) {
            bf16* to = (bf16*)a.data.data() + size_t(r) * l->k;
            const int y = 2 * ((first + r) / half) - 1, z = 2 * ((first + r) % half) - 1;
            for (int tap = 0; tap < 9; tap++, to += c) {
                const int v = y + tap / 3, h = z + tap % 3;
                if (v < 0 || h < 0)
                    std::memset(to, 0, size_t(c) * 2);
                else
                    std::memcpy(to, x + (long(v) * side + h) * c, size_t(c) * 2);
            }
        }
        product(a, n, *l, [&](int r, int col, __m512 v) { _mm512_storeu_ps(&found[size_t(r) * l->n + col], v); });
        for (int r = 0; r < n; r++) {
            float* row = &found[size_t(r) * l->n];
            normalise(row, l->n, *norm, row);
            for (int i = 0; i < l->n; i += LANES)
                store_bf16(out + long(first + r) * l->n + i, gelu(_mm512_loadu_ps(row + i)));
        }
    }
}

// A 7x7 depthwise convolution with padding 3 on [side, side, c]; weights [49, c].
void rt_depthwise(const float* x, int side, int c, const float* weight, const float* bias, float* out) {
#pragma omp parallel for
    for (int y = 0; y < side; y++)
        for (int z = 0; z < side; z++)
            for (int i = 0; i < c; i += LANES) {
                __m512 sum = _mm512_loadu_ps(bias + i);
                for (int v = std::max(0, y - 3); v <= std::min(side - 1, y + 3); v++)
                    for (int h = std::max(0, z - 3); h <= std::min(side - 1, z + 3); h++)
                        sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + (long(v) * side + h) * c + i),
                                              _mm512_loadu_ps(weight + long((v - y + 3) * 7 + h - z + 3) * c + i), sum);
                _mm512_storeu_ps(out + (long(y) * side + z) * c + i, sum);
            }
}

// gelu(norm(x spread to four pixels a cell + added)): x [side, side, 2 * 2 * c], added [2 side, 2 side, c]. As bf16
// rows; or, with `mix` [c], as its product with them: float [2 side, 2 side].
void rt_upscale(const float* x, int side, int c, const float* added, const Norm* norm, const float* mix, void* out) {
#pragma omp parallel for
    for (int y = 0; y < 2 * side; y++)
        for (int z = 0; z < 2 * side; z++) {
            const float* from = x + ((long(y / 2) * side + z / 2) * 4 + y % 2 * 2 + z % 2) * c;
            const long cell = long(y) * 2 * side + z;
            float row[512];
            for (int i = 0; i < c; i += LANES)
                _mm512_storeu_ps(row + i,
                                 _mm512_add_ps(_mm512_loadu_ps(from + i), _mm512_loadu_ps(added + cell * c + i)));
            if (norm->gamma) normalise(row, c, *norm, row);
            __m512 sum = _mm512_setzero_ps();
            for (int i = 0; i < c; i += LANES) {
                const __m512 v = gelu(_mm512_loadu_ps(row + i));
                if (mix)
                    sum = _mm512_fmadd_ps(v, _mm512_loadu_ps(mix + i), sum);
                else
                    store_bf16((bf16*)out + cell * c + i, v);
            }
            if (mix) ((float*)out)[cell] = _mm512_reduce_add_ps(sum);
        }
}

}  // extern "C"
