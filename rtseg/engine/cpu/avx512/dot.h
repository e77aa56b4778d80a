// Numbers, and the one matrix kernel that serves linear layers, queries by keys, and probabilities by values: rows of
// A, broadcast a few numbers at a time, by a B that is packed in panels of up to 64 columns, in bf16 pairs or int8
// quadruples. Each 16 results go to an epilogue.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;
constexpr int LANES = 16;    // floats in a register
constexpr int PANEL = 4;     // registers across a panel of B: 64 columns
constexpr int ROWS = 6;      // rows of A at once: 6 x 4 accumulators, 4 of B and a broadcast fill the registers
constexpr int CHUNK = 96;    // rows that a thread takes through a whole layer: they stay in its L2
constexpr int QUERIES = 24;  // rows of an attention tile
constexpr int KEYS = 256;    // and its columns: the scores stay in L1
constexpr float INF = INFINITY;

enum Kind { BF16 = 0, INT8 = 1 };
enum Activation { NONE = 0, RELU = 1, GELU = 2 };

inline int up(int n, int to) { return (n + to - 1) / to * to; }

inline __m512 load_bf16(const bf16* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}

inline void store_bf16(bf16* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }

inline bf16 to_bf16(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// 2^x to a relative 3e-6, for x <= 0 as softmax gives it; -inf gives 0.
inline __m512 exp2_of(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-200.f));
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(9.57007e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.591794e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4024746e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9312181e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9999926e-1f));
    return _mm512_scalef_ps(p, whole);
}

// x * Phi(x): GELU to 7e-6 for |x| < 4 and 3e-5 of x beyond (an odd polynomial for Phi - 1/2, clamped at 4).
inline __m512 gelu(__m512 x) {
    const __m512 edge = _mm512_set1_ps(4.f);
    const __m512 c = _mm512_min_ps(_mm512_max_ps(x, _mm512_sub_ps(_mm512_setzero_ps(), edge)), edge);
    const __m512 s = _mm512_mul_ps(c, c);
    static const float POLY[] = {6.74025873e-11f, -6.06681123e-9f, 2.44081734e-7f,  -5.86055664e-6f, 9.49398541e-5f,
                                 -1.11285398e-3f, 9.81579470e-3f,  -6.63236198e-2f, 3.98881009e-1f};
    __m512 p = _mm512_set1_ps(POLY[0]);
    for (int i = 1; i < int(sizeof(POLY) / sizeof(float)); i++) p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(POLY[i]));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(p, c, _mm512_set1_ps(0.5f)));
}

inline __m512 activate(__m512 x, int activation) {
    if (activation == GELU) return gelu(x);
    return activation == RELU ? _mm512_max_ps(x, _mm512_setzero_ps()) : x;
}

struct Bf16Dot {
    using Element = bf16;
    using Sum = __m512;
    static constexpr int GROUP = 2;
    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum add(Sum c, __m512i a, __m512i b) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
};

// The weights are unsigned (w + 128), for the instruction wants one unsigned side; the epilogue takes 128 * sum(a) off.
struct Int8Dot {
    using Element = int8_t;
    using Sum = __m512i;
    static constexpr int GROUP = 4;
    static Sum zero() { return _mm512_setzero_si512(); }
    static Sum add(Sum c, __m512i a, __m512i b) {
        asm("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(b), "v"(a));  // the intrinsic, but GCC 12 spills around that
        return c;
    }
};

template <class Dot, int MR, int NV, class Out>
inline void tile(const typename Dot::Element* a, long lda, const typename Dot::Element* b, int k, int row, int col,
                 Out& out) {
    typename Dot::Sum c[MR][NV];
    for (int r = 0; r < MR; r++)
        for (int v = 0; v < NV; v++) c[r][v] = Dot::zero();
    const char* at = (const char*)a;
    const char* panel = (const char*)b;
    const long stride = lda * long(sizeof(*a));
    for (int step = 0; step < k / Dot::GROUP; step++, at += 4, panel += NV * 64) {
        __m512i bs[NV];
        for (int v = 0; v < NV; v++) bs[v] = _mm512_loadu_si512(panel + v * 64);
        for (int r = 0; r < MR; r++) {
            int group;
            std::memcpy(&group, at + r * stride, 4);
            const __m512i as = _mm512_set1_epi32(group);
            for (int v = 0; v < NV; v++) c[r][v] = Dot::add(c[r][v], as, bs[v]);
        }
    }
    for (int r = 0; r < MR; r++)
        for (int v = 0; v < NV; v++) out(row + r, col + v * LANES, c[r][v]);
}

template <class Dot, int NV, class Out>
inline void panel_product(const typename Dot::Element* a, long lda, const typename Dot::Element* b, int rows, int k,
                          int col, Out& out) {
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS) tile<Dot, ROWS, NV>(a + r * lda, lda, b, k, r, col, out);
    switch (rows - r) {
        case 5: tile<Dot, 5, NV>(a + r * lda, lda, b, k, r, col, out); break;
        case 4: tile<Dot, 4, NV>(a + r * lda, lda, b, k, r, col, out); break;
        case 3: tile<Dot, 3, NV>(a + r * lda, lda, b, k, r, col, out); break;
        case 2: tile<Dot, 2, NV>(a + r * lda, lda, b, k, r, col, out); break;
        case 1: tile<Dot, 1, NV>(a + r * lda, lda, b, k, r, col, out); break;
        default: break;
    }
}

// A [rows, k] by packed B [k, n] (n a multiple of 16, k of the group); `out(row, column, 16 sums)` takes the results.
template <class Dot, class Out>
inline void gemm(const typename Dot::Element* a, long lda, const typename Dot::Element* b, int rows, int n, int k,
                 Out out) {
    for (int col = 0; col < n; col += PANEL * LANES, b += long(PANEL) * LANES * k) {
        switch (std::min(PANEL, (n - col) / LANES)) {
            case 4: panel_product<Dot, 4>(a, lda, b, rows, k, col, out); break;
            case 3: panel_product<Dot, 3>(a, lda, b, rows, k, col, out); break;
            case 2: panel_product<Dot, 2>(a, lda, b, rows, k, col, out); break;
            default: panel_product<Dot, 1>(a, lda, b, rows, k, col, out); break;
        }
    }
}

// Where element (column, i) of a B with `k` rows lies: panels of 64 columns, in them groups of `group` along k.
inline long packed_at(int col, int i, int n, int k, int group) {
    const int panel = col / (PANEL * LANES), width = std::min(PANEL * LANES, n - panel * PANEL * LANES);
    const int within = col % (PANEL * LANES);
    return long(panel) * PANEL * LANES * k + (long(i / group) * width + within) * group + i % group;
}

}  // namespace
