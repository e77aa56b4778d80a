// A picture as the network sees it: squeezed to a square by weighted sums of pixels, rounded to bytes, normalised.
#pragma once

#include "lanes.h"

namespace {

// What each place of the square is made of along one axis: `taps` pixels, and how much each counts.
struct Axis {
    const int* at;        // [size, taps]
    const float* weight;  // [size, taps]
    int taps;
};

// One row of the square's height, still of the picture's width: `n` numbers, and 16 of room behind them.
inline void mix_rows(const uint8_t* image, long ld, const Axis& rows, int y, int n, float* out) {
    const int* at = rows.at + long(y) * rows.taps;
    const float* weight = rows.weight + long(y) * rows.taps;
    for (int i = 0; i < n; i += LANES) {
        F sum = set(0.f);
        for (int k = 0; k < rows.taps; k++) sum = fma(bytes(image + at[k] * ld + i, n - i), set(weight[k]), sum);
        store(out + i, sum);
    }
}

// Four pixels of a mixed row, side by side, to three planes.
inline void mix_columns(const float* row, const Axis& columns, int x, __m128 scale, __m128 shift, float* const* out) {
    __m128 pixel[4];
    for (int p = 0; p < 4; p++) {
        const int* at = columns.at + long(x + p) * columns.taps;
        const float* weight = columns.weight + long(x + p) * columns.taps;
        __m128 sum = _mm_setzero_ps();
        for (int k = 0; k < columns.taps; k++)
            sum = _mm_fmadd_ps(_mm_loadu_ps(row + 3 * at[k]), _mm_set1_ps(weight[k]), sum);
        pixel[p] = _mm_fmsub_ps(_mm_cvtepi32_ps(_mm_cvtps_epi32(sum)), scale, shift);
    }
    _MM_TRANSPOSE4_PS(pixel[0], pixel[1], pixel[2], pixel[3]);
    for (int c = 0; c < 3; c++) _mm_storeu_ps(out[c] + x, pixel[c]);
}

}  // namespace
