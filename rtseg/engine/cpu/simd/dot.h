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
constexpr int FEW = 96;      // queries of a window that do not pay for rounding its keys to int16
constexpr float INF = INFINITY;

enum Kind { F32 = 0, BF16 = 1, INT16 = 2, INT8 = 3 };

constexpr int group_of(int kind) { return kind == F32 ? 1 : kind == INT8 ? 4 : 2; }  // numbers in four bytes
constexpr int bytes_of(int kind) { return 4 / group_of(kind); }

// The largest int16 with which no sum of k products can overflow 32 bits.
inline int levels_of(int k) { return std::min(32767, int(std::sqrt(2147483647.0 / std::max(1, k)))); }

// Where the groups of a row of A lie: one behind the other, or at listed distances, as a convolution's do.
struct InOrder {
    const char* a;
    InOrder at(long bytes) const { return {a + bytes}; }
    const char* next() { return a += 4, a - 4; }
};

struct Listed {
    const char* a;
    const int* distance;  // bytes
    Listed at(long bytes) const { return {a + bytes, distance}; }
    const char* next() { return a + *distance++; }
};

#if RT_AVX512

inline I group_at(const char* a) {
    int group;
    std::memcpy(&group, a, 4);
    return iset(group);
}

struct F32Dot {
    using Sum = F;
    static Sum zero() { return set(0.f); }
    static Sum add(Sum c, const char* a, I b) { return fma(bits(group_at(a)), bits(b), c); }
};

struct Int16Dot {
    using Sum = I;
    static Sum zero() { return iset(0); }
    static Sum add(Sum c, const char* a, I b) { return iadd(c, _mm512_madd_epi16(group_at(a), b)); }
};

#if RT_BF16
struct Bf16Dot {
    using Sum = F;
    static Sum zero() { return set(0.f); }
    static Sum add(Sum c, const char* a, I b) { return _mm512_dpbf16_ps(c, (__m512bh)group_at(a), (__m512bh)b); }
};

// The weights are unsigned (w + 128), for the instruction wants one unsigned side; the epilogue takes 128 * sum(a) off.
struct Int8Dot {
    using Sum = I;
    static Sum zero() { return iset(0); }
    static Sum add(Sum c, const char* a, I b) {
        asm("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(b), "v"(group_at(a)));  // GCC 12 spills around the intrinsic
        return c;
    }
};
#endif

template <class Dot, int MR, int NV, class From, class Out>
inline void tile(From a, long stride, const char* panel, int steps, int row, int col, Out& out) {
    typename Dot::Sum c[MR][NV];
    for (int r = 0; r < MR; r++)
        for (int v = 0; v < NV; v++) c[r][v] = Dot::zero();
    for (int step = 0; step < steps; step++, panel += NV * 64) {
        const char* group = a.next();
        I b[NV];
        for (int v = 0; v < NV; v++) b[v] = iload(panel + v * 64);
        for (int r = 0; r < MR; r++)
            for (int v = 0; v < NV; v++) c[r][v] = Dot::add(c[r][v], group + r * stride, b[v]);
    }
    for (int r = 0; r < MR; r++)
        for (int v = 0; v < NV; v++) out(row + r, col + v * LANES, c[r][v]);
}

#else

// The products of AVX2 are written out: around their intrinsics GCC 12 runs out of its 16 registers. The group at `a` is
// broadcast to x, and multiplied with both halves of b; a sum is 8 floats or 8 int32.
#define RT_DOT(broadcast, one, two)                  \
    __m256i x;                                       \
    asm(broadcast " %3, %2\n\t" one "\n\t" two       \
        : "+x"(c0), "+x"(c1), "=&x"(x)               \
        : "m"(*(const int*)a), "x"(b0), "x"(b1))

struct F32Dot {
    static F sum_at(const __m256i* p) { return load((const float*)p); }
    static void add(__m256i& c0, __m256i& c1, const char* a, __m256i b0, __m256i b1) {
        RT_DOT("vbroadcastss", "vfmadd231ps %4, %2, %0", "vfmadd231ps %5, %2, %1");
    }
};

struct Int16Dot {
    static I sum_at(const __m256i* p) { return iload(p); }
    static void add(__m256i& c0, __m256i& c1, const char* a, __m256i b0, __m256i b1) {
#if RT_VNNI
        RT_DOT("vpbroadcastd", "%{vex%} vpdpwssd %4, %2, %0", "%{vex%} vpdpwssd %5, %2, %1");
#else
        __m256i x, y;
        asm("vpbroadcastd %4, %2\n\tvpmaddwd %5, %2, %3\n\tvpmaddwd %6, %2, %2\n\t"
            "vpaddd %3, %0, %0\n\tvpaddd %2, %1, %1"
            : "+x"(c0), "+x"(c1), "=&x"(x), "=&x"(y)
            : "m"(*(const int*)a), "x"(b0), "x"(b1));
#endif
    }
};

#if RT_VNNI
struct Int8Dot {  // with unsigned weights, as above
    static I sum_at(const __m256i* p) { return iload(p); }
    static void add(__m256i& c0, __m256i& c1, const char* a, __m256i b0, __m256i b1) {
        RT_DOT("vpbroadcastd", "%{vex%} vpdpbusd %2, %4, %0", "%{vex%} vpdpbusd %2, %5, %1");
    }
};
#endif

// A function of its own, and its sums to memory by asm: within a larger one GCC runs out of registers, and keeps the sums
// in memory at every step.
template <class Dot, int MR, int NV, class From, class Out>
__attribute__((noinline)) void tile(From a, long stride, const char* panel, int steps, int row, int col, Out& out) {
    static_assert(NV == 1, "the sums of one panel of 16 columns fill the registers");
    __m256i c0[MR], c1[MR];
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++) c0[r] = c1[r] = _mm256_setzero_si256();
    for (int step = 0; step < steps; step++, panel += 64) {
        const char* group = a.next();
        const __m256i b0 = _mm256_loadu_si256((const __m256i*)panel), b1 = _mm256_loadu_si256((const __m256i*)panel + 1);
#pragma GCC unroll 6
        for (int r = 0; r < MR; r++) Dot::add(c0[r], c1[r], group + r * stride, b0, b1);
    }
    alignas(64) __m256i kept[MR][2];
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++) {
        asm("vmovdqa %1, %0" : "=m"(kept[r][0]) : "x"(c0[r]));
        asm("vmovdqa %1, %0" : "=m"(kept[r][1]) : "x"(c1[r]));
    }
    for (int r = 0; r < MR; r++) out(row + r, col, Dot::sum_at(kept[r]));
}

#endif

#if RT_BF16
using HalfDot = Bf16Dot;
#else
using HalfDot = F32Dot;
#endif
#if !(RT_BF16 || RT_VNNI)
using Int8Dot = Int16Dot;  // never asked for: Packed takes int16 where the CPU has no byte products
#endif

template <class Dot, int NV, class From, class Out>
inline void panel_product(From a, long stride, const char* b, int rows, int steps, int col, Out& out) {
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS) tile<Dot, ROWS, NV>(a.at(r * stride), stride, b, steps, r, col, out);
    a = a.at(r * stride);
    switch (rows - r) {
        case 5: tile<Dot, 5, NV>(a, stride, b, steps, r, col, out); break;
        case 4: tile<Dot, 4, NV>(a, stride, b, steps, r, col, out); break;
        case 3: tile<Dot, 3, NV>(a, stride, b, steps, r, col, out); break;
        case 2: tile<Dot, 2, NV>(a, stride, b, steps, r, col, out); break;
        case 1: tile<Dot, 1, NV>(a, stride, b, steps, r, col, out); break;
        default: break;
    }
}

// A, rows of `stride` bytes, by packed B of n columns (a multiple of 16), `steps` groups of four bytes deep;
// `out(row, column, 16 sums)` takes the results.
template <class Dot, class From, class Out>
inline void gemm_from(From from, long stride, const void* b, int rows, int n, int steps, Out out) {
    const char* panel = (const char*)b;
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

template <class Dot, class Out>
inline void gemm(const void* a, long stride, const void* b, int rows, int n, int steps, Out out) {
    gemm_from<Dot>(InOrder{(const char*)a}, stride, b, rows, n, steps, out);
}

// Where element (column, i) of a B with `k` rows lies: panels of columns, in them groups of `group` along k.
inline long packed_at(int col, int i, int n, int k, int group) {
    const int panel = col / (PANEL * LANES), width = std::min(PANEL * LANES, n - panel * PANEL * LANES);
    const int within = col % (PANEL * LANES);
    return long(panel) * PANEL * LANES * k + (long(i / group) * width + within) * group + i % group;
}

}  // namespace
