// Sixteen floats as one value, on any instruction set: a register with AVX-512, a pair of registers with AVX2.
//
// Everything above this file is written in these sixteen lanes, and compiled once for each instruction set (setup.py):
// RT_AVX512: AVX-512 F, BW, VL and DQ; RT_BF16: with BF16 and VNNI; RT_VNNI: AVX2 with AVX-VNNI; none: AVX2 and FMA.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pool.h"

namespace {

using bf16 = uint16_t;
constexpr int LANES = 16;

#if RT_AVX512

using F = __m512;
using I = __m512i;

inline F set(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F fms(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }
inline F least(F a, F b) { return _mm512_min_ps(a, b); }
inline F most(F a, F b) { return _mm512_max_ps(a, b); }
inline F absolute(F a) { return _mm512_abs_ps(a); }
inline F root(F a) { return _mm512_sqrt_ps(a); }
inline F whole(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline float sum_of(F a) { return _mm512_reduce_add_ps(a); }
inline float most_of(F a) { return _mm512_reduce_max_ps(a); }
// x * 2^n for whole n.
inline F scaled(F x, F n) { return _mm512_scalef_ps(x, n); }
// The first `n` lanes of `a`, the others of `b`.
inline F first(int n, F a, F b) { return _mm512_mask_blend_ps((__mmask16)((1u << n) - 1), b, a); }
// a where x > 0, else b.
inline F positive(F x, F a, F b) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), b, a);
}
// Every second float of 32, from the first.
inline F evens(const float* p) {
    const I at = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_permutex2var_ps(load(p), at, load(p + LANES));
}

inline I iset(int x) { return _mm512_set1_epi32(x); }
inline I iload(const void* p) { return _mm512_loadu_si512(p); }
inline void istore(void* p, I v) { _mm512_storeu_si512(p, v); }
inline I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
inline I isub(I a, I b) { return _mm512_sub_epi32(a, b); }
inline I iand(I a, I b) { return _mm512_and_si512(a, b); }
inline I ior(I a, I b) { return _mm512_or_si512(a, b); }
inline I ixor(I a, I b) { return _mm512_xor_si512(a, b); }
template <int N>
inline I ileft(I a) {
    return _mm512_slli_epi32(a, N);
}
inline int isum_of(I a) { return _mm512_reduce_add_epi32(a); }
inline I rounded(F a) { return _mm512_cvtps_epi32(a); }
inline F floats(I a) { return _mm512_cvtepi32_ps(a); }
inline F bits(I a) { return _mm512_castsi512_ps(a); }
inline void store_i8(int8_t* p, I v) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(v)); }
inline void store_i16(int16_t* p, I v) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(v)); }
inline I widened(const uint16_t* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
// The first `n` (at most 16) of the bytes at p, as floats; zeros beyond.
inline F bytes(const uint8_t* p, int n) {
    const __mmask16 there = n < LANES ? (__mmask16)((1u << n) - 1) : 0xffff;
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(there, p)));
}

#else

struct F {
    __m256 a, b;
};
struct I {
    __m256i a, b;
};

inline F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F v) { _mm256_storeu_ps(p, v.a), _mm256_storeu_ps(p + 8, v.b); }
inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F fms(F x, F y, F z) { return {_mm256_fmsub_ps(x.a, y.a, z.a), _mm256_fmsub_ps(x.b, y.b, z.b)}; }
inline F least(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F most(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F absolute(F x) {
    const __m256 sign = _mm256_set1_ps(-0.f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F root(F x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
inline F whole(F x) {
    constexpr int how = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, how), _mm256_round_ps(x.b, how)};
}
inline float sum_of(F x) {
    const __m256 s = _mm256_add_ps(x.a, x.b);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float most_of(F x) {
    const __m256 s = _mm256_max_ps(x.a, x.b);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
inline __m256 scaled(__m256 x, __m256 n) {
    const __m256i power = _mm256_cvtps_epi32(_mm256_max_ps(n, _mm256_set1_ps(-127.f)));  // -127 gives 0
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(power, _mm256_set1_epi32(127)), 23)));
}
inline F scaled(F x, F n) { return {scaled(x.a, n.a), scaled(x.b, n.b)}; }
inline F first(int n, F x, F y) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
    const __m256i high = _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane);
    return {_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(low)), _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(high))};
}
inline F positive(F x, F p, F q) {
    const __m256 zero = _mm256_setzero_ps();
    return {_mm256_blendv_ps(q.a, p.a, _mm256_cmp_ps(x.a, zero, _CMP_GT_OQ)),
            _mm256_blendv_ps(q.b, p.b, _mm256_cmp_ps(x.b, zero, _CMP_GT_OQ))};
}
inline __m256 evens(__m256 x, __m256 y) {
    const __m256 mixed = _mm256_shuffle_ps(x, y, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}
inline F evens(const float* p) {
    const F one = load(p), two = load(p + LANES);
    return {evens(one.a, one.b), evens(two.a, two.b)};
}

inline I iset(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I iload(const void* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
inline void istore(void* p, I v) {
    _mm256_storeu_si256((__m256i*)p, v.a), _mm256_storeu_si256((__m256i*)p + 1, v.b);
}
inline I iadd(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I isub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline I iand(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline I ior(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
inline I ixor(I x, I y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
template <int N>
inline I ileft(I x) {
    return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
}
inline int isum_of(I x) {
    const __m256i s = _mm256_add_epi32(x.a, x.b);
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}
inline I rounded(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline F floats(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline F bits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
inline __m256i halved(I x) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8); }
inline void store_i16(int16_t* p, I v) { _mm256_storeu_si256((__m256i*)p, halved(v)); }
inline void store_i8(int8_t* p, I v) {
    const __m256i words = halved(v);
    _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
inline I widened(const uint16_t* p) {
    return {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)),
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p + 1))};
}
inline F bytes(const uint8_t* p, int n) {
    alignas(16) uint8_t held[LANES] = {};
    if (n < LANES) std::memcpy(held, p, n), p = held;
    const __m128i all = _mm_loadu_si128((const __m128i*)p);
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(all)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(all, 8)))};
}

#endif

inline bf16 to_bf16(float f) {
    uint32_t word;
    std::memcpy(&word, &f, 4);
    return (bf16)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

// What attention reads and writes: bf16 where the CPU multiplies it, else float.
#if RT_BF16
using half = bf16;
inline F load(const bf16* p) { return bits(ileft<16>(widened(p))); }
inline void store(bf16* p, F v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }
inline half to_half(float x) { return to_bf16(x); }
#else
using half = float;
inline half to_half(float x) { return x; }
#endif

inline int up(int n, int to) { return (n + to - 1) / to * to; }

// 2^x to a relative 3e-6, for x <= 0 as softmax gives it; -inf gives 0.
inline F exp2_of(F x) {
    x = most(x, set(-200.f));
    const F n = whole(x), f = sub(x, n);
    F p = set(9.57007e-3f);
    for (float c : {5.591794e-2f, 2.4024746e-1f, 6.9312181e-1f, 9.9999926e-1f}) p = fma(p, f, set(c));
    return scaled(p, n);
}

// x * Phi(x): GELU to 7e-6 for |x| < 4 and 3e-5 of x beyond (an odd polynomial for Phi - 1/2, clamped at 4).
__attribute__((always_inline)) inline F gelu(F x) {
    const F c = least(most(x, set(-4.f)), set(4.f)), s = mul(c, c);
    F p = set(6.74025873e-11f);
    for (float k : {-6.06681123e-9f, 2.44081734e-7f, -5.86055664e-6f, 9.49398541e-5f, -1.11285398e-3f, 9.81579470e-3f,
                    -6.63236198e-2f, 3.98881009e-1f})
        p = fma(p, s, set(k));
    return mul(x, fma(p, c, set(0.5f)));
}

enum Activation { NONE = 0, RELU = 1, GELU = 2, RELU6 = 3 };

__attribute__((noinline)) F gelu_apart(F x) { return gelu(x); }

inline F activate(F x, int activation) {
    if (activation == GELU) return gelu_apart(x);  // within a product it would take the registers of the sums
    if (activation == RELU6) return least(most(x, set(0.f)), set(6.f));
    return activation == RELU ? most(x, set(0.f)) : x;
}

// Of a row, or several, of a multiple of 16 numbers. GELU is three times as fast here as within a product.
inline void gelu_row(float* x, long n) {
    for (long i = 0; i < n; i += LANES) store(x + i, gelu(load(x + i)));
}

}  // namespace
