// The one matrix kernel that serves linear layers, queries by keys, and probabilities by values: rows of A, broadcast
// four bytes at a time, by a B that is packed in panels of columns. Each 16 results go to an epilogue.
//
// Four bytes hold one float, two bf16 or int16, or four int8; so every kind has the same loop and the same packing.
#pragma once

#include "lanes.h"

namespace {

#if RT_AVX512
constexpr int PANEL = 4;  // 64 columns: 6 x 4 accumulators, 4 of B and a broadcast fill the 32 registers
#else
constexpr int PANEL = 1;  // 16 columns: 6 x 2 accumulators, 2 of B, a broadcast and a product fill the 16
#endif
constexpr int ROWS = 6;      // rows of A at once
constexpr int CHUNK = 96;    // rows that a thread takes through a whole layer: they stay in its L2
constexpr int QUERIES = 24;  // rows of an attention tile
constexpr int KEYS = 256;    // and its columns: the scores stay in L1
constexpr float INF = INFINITY;

enum Kind { F32 = 0, BF16 = 1, INT16 = 2, INT8 = 3 };

constexpr int group_of(int kind) { return kind == F32 ? 1 : kind == INT8 ? 4 : 2; }  // numbers in four bytes
constexpr int bytes_of(int kind) { return 4 / group_of(kind); }

// The largest int16 with which no sum of k products can overflow 32 bits.
inline int levels_of(int k) { return std::min(32767, int(std::sqrt(2147483647.0 / std::max(1, k)))); }

struct F32Dot {
    using Sum = F;
    static Sum zero() { return set(0.f); }
    static Sum add(Sum c, int a, I b) {
        float x;
        std::memcpy(&x, &a, 4);
        return fma(set(x), bits(b), c);
    }
};

struct Int16Dot {
    using Sum = I;
    static Sum zero() { return iset(0); }
    static Sum add(Sum c, int a, I b) {
#if RT_BF16
        asm("vpdpwssd %2, %1, %0" : "+v"(c) : "v"(b), "v"(iset(a)));
        return c;
#elif RT_AVX512
        return iadd(c, _mm512_madd_epi16(iset(a), b));
#elif RT_VNNI
        const __m256i as = _mm256_set1_epi32(a);
        return {_mm256_dpwssd_avx_epi32(c.a, as, b.a), _mm256_dpwssd_avx_epi32(c.b, as, b.b)};
#else
        const __m256i as = _mm256_set1_epi32(a);
        return {_mm256_add_epi32(c.a, _mm256_madd_epi16(as, b.a)), _mm256_add_epi32(c.b, _mm256_madd_epi16(as, b.b))};
#endif
    }
};

#if RT_BF16
struct Bf16Dot {
    using Sum = F;
    static Sum zero() { return set(0.f); }
    static Sum add(Sum c, int a, I b) { return _mm512_dpbf16_ps(c, (__m512bh)iset(a), (__m512bh)b); }
};
using HalfDot = Bf16Dot;
#else
using HalfDot = F32Dot;
#endif

#if RT_BF16 || RT_VNNI
// The weights are unsigned (w + 128), for the instruction wants one unsigned side; the epilogue takes 128 * sum(a) off.
struct Int8Dot {
    using Sum = I;
    static Sum zero() { return iset(0); }
    static Sum add(Sum c, int a, I b) {
#if RT_BF16
        asm("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(b), "v"(iset(a)));  // the intrinsic, but GCC 12 spills around that
        return c;
#else
        const __m256i as = _mm256_set1_epi32(a);
        return {_mm256_dpbusd_avx_epi32(c.a, b.a, as), _mm256_dpbusd_avx_epi32(c.b, b.b, as)};
#endif
    }
};
#else
using Int8Dot = Int16Dot;  // never asked for: Packed takes int16 where the CPU has no byte products
#endif

template <class Dot, int MR, int NV, class Out>
inline void tile(const char* a, long stride, const char* panel, int steps, int row, int col, Out& out) {
    typename Dot::Sum c[MR][NV];
    for (int r = 0; r < MR; r++)
        for (int v = 0; v < NV; v++) c[r][v] = Dot::zero();
    for (int step = 0; step < steps; step++, a += 4, panel += NV * 64) {
        I b[NV];
        for (int v = 0; v < NV; v++) b[v] = iload(panel + v * 64);
        for (int r = 0; r < MR; r++) {
            int group;
            std::memcpy(&group, a + r * stride, 4);
            for (int v = 0; v < NV; v++) c[r][v] = Dot::add(c[r][v], group, b[v]);
        }
    }
    for (int r = 0; r < MR; r++)
        for (int v = 0; v < NV; v++) out(row + r, col + v * LANES, c[r][v]);
}

template <class Dot, int NV, class Out>
inline void panel_product(const char* a, long stride, const char* b, int rows, int steps, int col, Out& out) {
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS) tile<Dot, ROWS, NV>(a + r * stride, stride, b, steps, r, col, out);
    switch (rows - r) {
        case 5: tile<Dot, 5, NV>(a + r * stride, stride, b, steps, r, col, out); break;
        case 4: tile<Dot, 4, NV>(a + r * stride, stride, b, steps, r, col, out); break;
        case 3: tile<Dot, 3, NV>(a + r * stride, stride, b, steps, r, col, out); break;
        case 2: tile<Dot, 2, NV>(a + r * stride, stride, b, steps, r, col, out); break;
        case 1: tile<Dot, 1, NV>(a + r * stride, stride, b, steps, r, col, out); break;
        default: break;
    }
}

// A, rows of `stride` bytes, by packed B of n columns (a multiple of 16), `steps` groups of four bytes deep;
// `out(row, column, 16 sums)` takes the results.
template <class Dot, class Out>
inline void gemm(const void* a, long stride, const void* b, int rows, int n, int steps, Out out) {
    const char *from = (const char*)a, *panel = (const char*)b;
    for (int col = 0; col < n; col += PANEL * LANES, panel += long(PANEL) * LANES * steps * 4) {
#if RT_AVX512
        switch (std::min(PANEL, (n - col) / LANES)) {
            case 4: panel_product<Dot, 4>(from, stride, panel, rows, steps, col, out); break;
            case 3: panel_product<Dot, 3>(from, stride, panel, rows, steps, col, out); break;
            case 2: panel_product<Dot, 2>(from, stride, panel, rows, steps, col, out); break;
            default: panel_product<Dot, 1>(from, stride, panel, rows, steps, col, out); break;
        }
#else
        panel_product<Dot, 1>(from, stride, panel, rows, steps, col, out);
#endif
    }
}

// Where element (column, i) of a B with `k` rows lies: panels of columns, in them groups of `group` along k.
inline long packed_at(int col, int i, int n, int k, int group) {
    const int panel = col / (PANEL * LANES), width = std::min(PANEL * LANES, n - panel * PANEL * LANES);
    const int within = col % (PANEL * LANES);
    return long(panel) * PANEL * LANES * k + (long(i / group) * width + within) * group + i % group;
}

}  // namespace
