// Softmax attention in one pass over packed keys and values, tile by tile; and how they are packed.
#pragma once

#include "layers.h"

namespace {

// 16 rows of 16 numbers to 16 columns, in registers: each step exchanges what lies twice as far apart.
inline void transpose(__m512i (&r)[LANES]) {
    __m512i t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int k = 0; k < 2; k++) {
            r[i + 2 * k] = _mm512_unpacklo_epi64(t[i + k], t[i + k + 2]);
            r[i + 2 * k + 1] = _mm512_unpackhi_epi64(t[i + k], t[i + k + 2]);
        }
    for (int i = 0; i < LANES; i += 8)
        for (int k = 0; k < 4; k++) {
            t[i + k] = _mm512_shuffle_i32x4(r[i + k], r[i + k + 4], 0x88);
            t[i + k + 4] = _mm512_shuffle_i32x4(r[i + k], r[i + k + 4], 0xdd);
        }
    for (int k = 0; k < 8; k++) {
        r[k] = _mm512_shuffle_i32x4(t[k], t[k + 8], 0x88);
        r[k + 8] = _mm512_shuffle_i32x4(t[k], t[k + 8], 0xdd);
    }
}

// Keys [n, d] as a B of d rows and n columns, n filled up to 16 with zeros.
inline void pack_keys(const bf16* const* key, int n, int d, bf16* out) {
    const int wide = up(n, LANES);
    for (int j = 0; j < wide; j += LANES) {
        const int panel = j / (PANEL * LANES), width = std::min(PANEL * LANES, wide - panel * PANEL * LANES);
        bf16* to = out + long(panel) * PANEL * LANES * d + (j % (PANEL * LANES)) * 2;
        for (int i = 0; i < d; i += 2 * LANES) {  // 16 pairs of each of 16 keys
            const int pairs = std::min(LANES, (d - i) / 2);
            const __mmask16 there = (__mmask16)((1u << pairs) - 1);
            __m512i r[LANES];
            for (int lane = 0; lane < LANES; lane++)
                r[lane] = j + lane < n ? _mm512_maskz_loadu_epi32(there, key[j + lane] + i) : _mm512_setzero_si512();
            transpose(r);
            for (int k = 0; k < pairs; k++) _mm512_storeu_si512(to + long(i / 2 + k) * width * 2, r[k]);
        }
    }
}

// Values [n, d] as a B of n rows (filled up to 16 with zeros) and d columns.
inline void pack_values(const bf16* const* value, int n, int d, bf16* out) {
    const int tall = up(n, LANES);
    for (int c = 0; c < d; c += PANEL * LANES) {
        const int width = std::min(PANEL * LANES, d - c);
        for (int j = 0; j < tall; j += 2, out += width * 2)
            for (int i = 0; i < width; i += LANES) {
                const __m256i zero = _mm256_setzero_si256();
                const __m256i a = j < n ? _mm256_loadu_si256((const __m256i*)(value[j] + c + i)) : zero;
                const __m256i b = j + 1 < n ? _mm256_loadu_si256((const __m256i*)(value[j + 1] + c + i)) : zero;
                const __m512i pairs =
                    _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
                _mm512_storeu_si512(out + i * 2, pairs);
            }
    }
}

// Packed bf16 keys, plus `added` (packed likewise; null: nothing), to packed int8 with a scale for each key.
inline void round_keys(const bf16* keys, const bf16* added, int n, int d, uint8_t* out, float* scale) {
    const int wide = up(n, LANES);
    static thread_local std::vector<float> held;
    held.resize(size_t(d) * LANES);
    for (int j = 0; j < wide; j += LANES) {
        const int panel = j / (PANEL * LANES), width = std::min(PANEL * LANES, wide - panel * PANEL * LANES);
        const long start = long(panel) * PANEL * LANES * d;
        __m512 most = _mm512_set1_ps(1e-30f);
        for (int i = 0; i < d; i += 2) {
            const long at = start + (long(i / 2) * width + j % (PANEL * LANES)) * 2;
            const __m512i pair = _mm512_loadu_si512(keys + at), high = _mm512_set1_epi32((int)0xffff0000);
            __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
            __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(pair, high));
            if (added) {
                const __m512i more = _mm512_loadu_si512(added + at);
                even = _mm512_add_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(more, 16)));
                odd = _mm512_add_ps(odd, _mm512_castsi512_ps(_mm512_and_si512(more, high)));
            }
            _mm512_storeu_ps(&held[size_t(i) * LANES], even);
            _mm512_storeu_ps(&held[size_t(i + 1) * LANES], odd);
            most = _mm512_max_ps(most, _mm512_max_ps(_mm512_abs_ps(even), _mm512_abs_ps(odd)));
        }
        const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(127.f), most);
        _mm512_storeu_ps(scale + j, _mm512_mul_ps(most, _mm512_set1_ps(1.f / 127.f)));
        for (int i = 0; i < d; i += 4) {
            __m512i quad = _mm512_set1_epi32((int)0x80808080);  // unsigned: 128 more, byte by byte
            for (int k = 0; k < 4; k++) {
                const __m512i q =
                    _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(&held[size_t(i + k) * LANES]), inverse));
                quad = _mm512_xor_si512(quad, _mm512_slli_epi32(_mm512_and_si512(q, _mm512_set1_epi32(255)), 8 * k));
            }
            _mm512_storeu_si512(out + start + (long(i / 4) * width + j % (PANEL * LANES)) * 4, quad);
        }
    }
}

inline std::vector<const bf16*> rows_of(const bf16* x, int n, int d) {
    std::vector<const bf16*> rows(n);
    for (int j = 0; j < n; j++) rows[j] = x + long(j) * d;
    return rows;
}

// Keys and values of one attention, packed, up to KEYS of them; with a scale for each key they are int8, else bf16.
struct Block {
    const void* keys;
    const float* scale;
    const bf16* values;
    int n;
};

// Softmax attention of up to QUERIES rows over blocks of packed keys, in one pass.
struct Tile {
    alignas(64) float scores[QUERIES * KEYS];
    alignas(64) bf16 weights[QUERIES * KEYS];
    float most[QUERIES], total[QUERIES], faded[QUERIES];
    std::vector<float> sum, wide;
    std::vector<bf16> queries;
    Rows rounded;
    int rows, width, d;
    bool fresh;  // no block has been seen yet

    template <class Query>
    void start(int rows_, int d_, int width_, bool int8, Query query) {
        rows = rows_, d = d_, width = width_;
        queries.resize(size_t(QUERIES) * d);
        wide.resize(d);
        if (int8) rounded.fit(rows, d, INT8);
        for (int r = 0; r < rows; r++) {
            std::memcpy(&queries[size_t(r) * d], query(r), size_t(d) * 2);
            if (!int8) continue;
            for (int i = 0; i < d; i += LANES) _mm512_storeu_ps(&wide[i], load_bf16(&queries[size_t(r) * d + i]));
            round_row(wide.data(), d, d, INT8, rounded, r);
        }
        sum.resize(size_t(QUERIES) * width);
        fresh = true;
    }

    // The probabilities of `n` scored keys, and how much what came before has faded beside them.
    void weigh(int n, float scale) {
        const int wide = up(n, LANES);
        const float base2 = scale * 1.44269504f;
        const __mmask16 last = (__mmask16)((1u << (n - (wide - LANES))) - 1);
        for (int r = 0; r < rows; r++) {
            float* s = scores + r * KEYS;
            __m512 top = _mm512_set1_ps(-INF);
            for (int j = 0; j < wide; j += LANES) {
                __m512 v = _mm512_loadu_ps(s + j);
                if (j + LANES == wide) {
                    v = _mm512_mask_blend_ps(last, _mm512_set1_ps(-INF), v);
                    _mm512_storeu_ps(s + j, v);
                }
                top = _mm512_max_ps(top, v);
            }
            float now = _mm512_reduce_max_ps(top) * base2;
            if (!fresh) {
                now = std::max(most[r], now);
                faded[r] = std::exp2(most[r] - now);
            }
            most[r] = now;
            __m512 added = _mm512_setzero_ps();
            for (int j = 0; j < wide; j += LANES) {
                const __m512 e =
                    exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(base2), _mm512_set1_ps(now)));
                added = _mm512_add_ps(added, e);
                store_bf16(weights + r * KEYS + j, e);
            }
            total[r] = _mm512_reduce_add_ps(added) + (fresh ? 0.f : total[r] * faded[r]);
        }
    }

    void score(const Block& b) {
        if (!b.scale) {
            gemm<Bf16Dot>(queries.data(), d, (const bf16*)b.keys, rows, up(b.n, LANES), d,
                          [&](int r, int c, __m512 v) { _mm512_storeu_ps(scores + r * KEYS + c, v); });
            return;
        }
        gemm<Int8Dot>(
            (const int8_t*)rounded.data.data(), d, (const int8_t*)b.keys, rows, up(b.n, LANES), d,
            [&](int r, int c, __m512i sum) {
                const __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(rounded.offset[r])));
                const __m512 s = _mm512_mul_ps(_mm512_set1_ps(rounded.scale[r]), _mm512_loadu_ps(b.scale + c));
                _mm512_storeu_ps(scores + r * KEYS + c, _mm512_mul_ps(v, s));
            });
    }

    void look(const Block& b, float scale) {
        score(b);
        weigh(b.n, scale);
        gemm<Bf16Dot>(weights, KEYS, b.values, rows, width, up(b.n, LANES), [&](int r, int c, __m512 v) {
            float* at = &sum[size_t(r) * width + c];
            if (!fresh) v = _mm512_fmadd_ps(_mm512_loadu_ps(at), _mm512_set1_ps(faded[r]), v);
            _mm512_storeu_ps(at, v);
        });
        fresh = false;
    }

    void finish(int r, bf16* out) const {
        const __m512 share = _mm512_set1_ps(1.f / total[r]);
        for (int c = 0; c < width; c += LANES)
            store_bf16(out + c, _mm512_mul_ps(_mm512_loadu_ps(&sum[size_t(r) * width + c]), share));
    }
};

template <class Query, class Out>
inline void attend_tile(Tile& tile, const std::vector<Block>& blocks, int rows, int d, int width, float scale,
                        Query query, Out out) {
    tile.start(rows, d, width, blocks[0].scale != nullptr, query);
    for (const Block& b : blocks) tile.look(b, scale);
    for (int r = 0; r < rows; r++) tile.finish(r, out(r));
}

}  // namespace

struct Attention {
    const bf16 *q, *k, *v;            // [token, ld]; head h begins at h * d (values: h * width)
    const bf16 *absent_k, *absent_v;  // rows that stand for a key index of -1
    bf16* out;
    const int32_t *q_index, *k_index;  // [windows, queries], [windows, keys]; null: in order. A query of -1 is the
                                       // end of its window
    long ld_q, ld_k, ld_v, ld_out;
    int windows, heads, queries, keys, d, width, int8;
    float scale;
};

namespace {

struct Window {
    std::vector<bf16> packed_keys, packed_values;
    std::vector<uint8_t> rounded_keys;
    std::vector<float> scales;
    std::vector<const bf16*> key_rows, value_rows;
    std::vector<Block> blocks;
    Tile tile;

    void pack(const Attention& a, int window, int head) {
        key_rows.resize(a.keys);
        value_rows.resize(a.keys);
        for (int j = 0; j < a.keys; j++) {
            const long at = a.k_index ? a.k_index[long(window) * a.keys + j] : long(window) * a.keys + j;
            key_rows[j] = (at < 0 ? a.absent_k : a.k + at * a.ld_k) + head * a.d;
            value_rows[j] = (at < 0 ? a.absent_v : a.v + at * a.ld_v) + head * a.width;
        }
        packed_keys.resize(size_t(up(a.keys, KEYS)) * a.d);
        packed_values.resize(size_t(up(a.keys, KEYS)) * a.width);
        rounded_keys.resize(a.int8 ? packed_keys.size() : 0);
        scales.resize(up(a.keys, KEYS));
        blocks.clear();
        for (int j = 0; j < a.keys; j += KEYS) {
            const int n = std::min(KEYS, a.keys - j);
            bf16 *k = &packed_keys[size_t(j) * a.d], *v = &packed_values[size_t(j) * a.width];
            pack_keys(&key_rows[j], n, a.d, k);
            pack_values(&value_rows[j], n, a.width, v);
            if (a.int8) round_keys(k, nullptr, n, a.d, &rounded_keys[size_t(j) * a.d], &scales[j]);
            if (a.int8)
                blocks.push_back({&rounded_keys[size_t(j) * a.d], &scales[j], v, n});
            else
                blocks.push_back({k, nullptr, v, n});
        }
    }

    void run(const Attention& a, int window, int head, int first, const std::vector<Block>& over) {
        const long start = long(window) * a.queries + first;
        auto token = [&](int r) { return a.q_index ? long(a.q_index[start + r]) : start + r; };
        int rows = std::min(QUERIES, a.queries - first);
        while (rows && token(rows - 1) < 0) rows--;
        auto query = [&](int r) { return a.q + token(r) * a.ld_q + head * a.d; };
        auto out = [&](int r) { return a.out + token(r) * a.ld_out + head * a.width; };
        attend_tile(tile, over, rows, a.d, a.width, a.scale, query, out);
    }
};

}  // namespace
