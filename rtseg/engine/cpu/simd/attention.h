// Softmax attention in one pass over packed keys and values, tile by tile; and how they are packed.
#pragma once

#include "layers.h"

namespace {

// 16 rows of 16 numbers to 16 columns, in registers: each step exchanges what lies twice as far apart.
#if RT_AVX512
inline void transpose(I (&r)[LANES]) {
    I t[LANES];
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
#else
inline void transpose(__m256i (&r)[8]) {
    __m256i t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            r[i + 2 * k] = _mm256_unpacklo_epi64(t[i + k], t[i + k + 2]);
            r[i + 2 * k + 1] = _mm256_unpackhi_epi64(t[i + k], t[i + k + 2]);
        }
    for (int k = 0; k < 4; k++) {
        t[k] = _mm256_permute2x128_si256(r[k], r[k + 4], 0x20);
        t[k + 4] = _mm256_permute2x128_si256(r[k], r[k + 4], 0x31);
    }
    for (int k = 0; k < 8; k++) r[k] = t[k];
}

inline void transpose(I (&r)[LANES]) {
    __m256i corner[2][2][8];  // rows, columns
    for (int i = 0; i < LANES; i++) corner[i / 8][0][i % 8] = r[i].a, corner[i / 8][1][i % 8] = r[i].b;
    for (auto& row : corner)
        for (auto& block : row) transpose(block);
    for (int i = 0; i < LANES; i++) r[i] = {corner[0][i / 8][i % 8], corner[1][i / 8][i % 8]};
}
#endif

constexpr int PAIR = 4 / sizeof(half);  // numbers in four bytes

// Four-byte groups at p, the first `n` of them.
inline I groups(const half* p, [[maybe_unused]] int n) {
#if RT_BF16
    return _mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), p);
#else
    return iload(p);  // heads are multiples of 16 wide
#endif
}

// Keys [n, d] as a B of d rows and n columns, n filled up to 16 with zeros.
inline void pack_keys(const half* const* key, int n, int d, half* out) {
    const int wide = up(n, LANES);
    for (int j = 0; j < wide; j += LANES) {
        const int panel = j / (PANEL * LANES), width = std::min(PANEL * LANES, wide - panel * PANEL * LANES);
        half* to = out + long(panel) * PANEL * LANES * d + (j % (PANEL * LANES)) * PAIR;
        for (int i = 0; i < d; i += PAIR * LANES) {  // 16 groups of each of 16 keys
            const int there = std::min(LANES, (d - i) / PAIR);
            I r[LANES];
            for (int lane = 0; lane < LANES; lane++) r[lane] = j + lane < n ? groups(key[j + lane] + i, there) : iset(0);
            transpose(r);
            for (int k = 0; k < there; k++) istore(to + long(i / PAIR + k) * width * PAIR, r[k]);
        }
    }
}

// Values [n, d] as a B of n rows (filled up to 16 with zeros) and d columns.
inline void pack_values(const half* const* value, int n, int d, half* out) {
    const int tall = up(n, LANES);
    for (int c = 0; c < d; c += PANEL * LANES) {
        const int width = std::min(PANEL * LANES, d - c);
        for (int j = 0; j < tall; j += PAIR, out += width * PAIR)
            for (int i = 0; i < width; i += LANES) {
#if RT_BF16
                const I one = j < n ? widened(value[j] + c + i) : iset(0);
                const I two = j + 1 < n ? widened(value[j + 1] + c + i) : iset(0);
                istore(out + i * 2, ior(one, ileft<16>(two)));
#else
                store(out + i, j < n ? load(value[j] + c + i) : set(0.f));
#endif
            }
    }
}

// Numbers i and i + 1 of 16 packed keys, that begin at p in rows of `width` keys.
inline void pair_of_rows(const half* p, [[maybe_unused]] int width, F& even, F& odd) {
#if RT_BF16
    const I pair = iload(p);
    even = bits(ileft<16>(pair)), odd = bits(iand(pair, iset((int)0xffff0000)));
#else
    even = load(p), odd = load(p + width);
#endif
}

// Packed keys, plus `added` (packed likewise; null: nothing), to packed int16 or int8 with a scale for each key.
inline void round_keys(const half* keys, const half* added, int n, int d, int kind, void* out, float* scale) {
    const int wide = up(n, LANES), levels = kind == INT8 ? 127 : levels_of(d);
    static thread_local std::vector<float> held;
    held.resize(size_t(d) * LANES);
    for (int j = 0; j < wide; j += LANES) {
        const int panel = j / (PANEL * LANES), width = std::min(PANEL * LANES, wide - panel * PANEL * LANES);
        const long start = long(panel) * PANEL * LANES * d;
        const int column = j % (PANEL * LANES);
        F top = set(1e-30f);
        for (int i = 0; i < d; i += 2) {
            const long at = start + (long(i / PAIR) * width + column) * PAIR;
            F even, odd;
            pair_of_rows(keys + at, width, even, odd);
            if (added) {
                F more_even, more_odd;
                pair_of_rows(added + at, width, more_even, more_odd);
                even = add(even, more_even), odd = add(odd, more_odd);
            }
            store(&held[size_t(i) * LANES], even);
            store(&held[size_t(i + 1) * LANES], odd);
            top = most(top, most(absolute(even), absolute(odd)));
        }
        const F inverse = div(set(float(levels)), top);
        store(scale + j, mul(top, set(1.f / levels)));
        auto q = [&](int i) { return rounded(mul(load(&held[size_t(i) * LANES]), inverse)); };
        for (int i = 0; kind == INT16 && i < d; i += 2)
            istore((int16_t*)out + start + (long(i / 2) * width + column) * 2,
                   ior(iand(q(i), iset(0xffff)), ileft<16>(q(i + 1))));
        for (int i = 0; kind == INT8 && i < d; i += 4) {
            const I low = iset(255);
            const I quad = ior(ior(iand(q(i), low), ileft<8>(iand(q(i + 1), low))),
                               ior(ileft<16>(iand(q(i + 2), low)), ileft<24>(q(i + 3))));
            // Unsigned: 128 more, byte by byte.
            istore((uint8_t*)out + start + (long(i / 4) * width + column) * 4, ixor(quad, iset((int)0x80808080)));
        }
    }
}

inline std::vector<const half*> rows_of(const half* x, int n, int d) {
    std::vector<const half*> rows(n);
    for (int j = 0; j < n; j++) rows[j] = x + long(j) * d;
    return rows;
}

// Keys and values of one attention, packed, up to KEYS of them; with a scale for each key they are int16 or int8.
struct Block {
    const void* keys;
    const float* scale;
    const half* values;
    int n;
};

// Softmax attention of up to QUERIES rows over blocks of packed keys, in one pass. `kind` of the keys: F32 means half.
struct Tile {
    alignas(64) float scores[QUERIES * KEYS];
#if RT_BF16
    alignas(64) half weights[QUERIES * KEYS];
#else
    half* weights = scores;  // in place
#endif
    float most_seen[QUERIES], total[QUERIES], faded[QUERIES];
    std::vector<float> sum, wide;
    std::vector<half> queries;
    Rows quantised;
    int rows, width, d, kind;
    bool fresh;  // no block has been seen yet

    template <class Query>
    void start(int rows_, int d_, int width_, int kind_, Query query) {
        rows = rows_, d = d_, width = width_, kind = kind_;
        sum.resize(size_t(QUERIES) * width);
        fresh = true;
        if (kind == F32) {
            queries.resize(size_t(QUERIES) * d);
            for (int r = 0; r < rows; r++) std::memcpy(&queries[size_t(r) * d], query(r), size_t(d) * sizeof(half));
            return;
        }
        wide.resize(d);
        quantised.fit(rows, d, kind);
        const int levels = kind == INT8 ? 127 : levels_of(d);
        for (int r = 0; r < rows; r++) {
            for (int i = 0; i < d; i += LANES) store(&wide[i], load(query(r) + i));
            round_row(wide.data(), d, d, kind, levels, quantised, r);
        }
    }

    // The probabilities of `n` scored keys, and how much what came before has faded beside them.
    void weigh(int n, float scale) {
        const int wide = up(n, LANES);
        const F base2 = set(scale * 1.44269504f);
        for (int r = 0; r < rows; r++) {
            float* s = scores + r * KEYS;
            F top = set(-INF);
            for (int j = 0; j < wide; j += LANES) {
                F v = load(s + j);
                if (j + LANES > n) {
                    v = ::first(n - j, v, set(-INF));
                    store(s + j, v);
                }
                top = most(top, v);
            }
            float now = most_of(top) * scale * 1.44269504f;
            if (!fresh) {
                now = std::max(most_seen[r], now);
                faded[r] = std::exp2(most_seen[r] - now);
            }
            most_seen[r] = now;
            F added = set(0.f);
            for (int j = 0; j < wide; j += LANES) {
                const F e = exp2_of(fms(load(s + j), base2, set(now)));
                added = add(added, e);
                store(weights + r * KEYS + j, e);
            }
            total[r] = sum_of(added) + (fresh ? 0.f : total[r] * faded[r]);
        }
    }

    void score(const Block& b) {
        const int columns = up(b.n, LANES);
        auto scaled_store = [&](int r, int c, I sum) {
            const F s = mul(set(quantised.scale[r]), load(b.scale + c));
            store(scores + r * KEYS + c, mul(floats(sum), s));
        };
        const long stride = long(d) * bytes_of(kind);
        if (kind == F32)
            gemm<HalfDot>(queries.data(), long(d) * sizeof(half), b.keys, rows, columns, d / PAIR,
                          [&](int r, int c, F v) { store(scores + r * KEYS + c, v); });
        else if (kind == INT16)
            gemm<Int16Dot>(quantised.data.data(), stride, b.keys, rows, columns, d / 2, scaled_store);
        else
            gemm<Int8Dot>(quantised.data.data(), stride, b.keys, rows, columns, d / 4,
                          [&](int r, int c, I sum) { scaled_store(r, c, isub(sum, iset(quantised.offset[r]))); });
    }

    void look(const Block& b, float scale) {
        score(b);
        weigh(b.n, scale);
        gemm<HalfDot>(weights, KEYS * sizeof(half), b.values, rows, width, up(b.n, LANES) / PAIR,
                      [&](int r, int c, F v) {
                          float* at = &sum[size_t(r) * width + c];
                          store(at, fresh ? v : fma(load(at), set(faded[r]), v));
                      });
        fresh = false;
    }

    void finish(int r, half* out) const {
        const F share = set(1.f / total[r]);
        for (int c = 0; c < width; c += LANES) store(out + c, mul(load(&sum[size_t(r) * width + c]), share));
    }
};

template <class Query, class Out>
inline void attend_tile(Tile& tile, const std::vector<Block>& blocks, int rows, int d, int width, int kind, float scale,
                        Query query, Out out) {
    tile.start(rows, d, width, kind, query);
    for (const Block& b : blocks) tile.look(b, scale);
    for (int r = 0; r < rows; r++) tile.finish(r, out(r));
}

struct Attention {
    const half *q, *k, *v;            // [token, ld]; head h begins at h * d (values: h * width)
    const half *absent_k, *absent_v;  // rows that stand for a key index of -1
    half* out;
    const int32_t *q_index, *k_index;  // [windows, queries], [windows, keys]; null: in order. A query of -1 is the
                                       // end of its window
    long ld_q, ld_k, ld_v, ld_out;
    int windows, heads, queries, keys, d, width, kind;
    float scale;
};

struct Window {
    std::vector<half> packed_keys, packed_values;
    std::vector<char> rounded_keys;
    std::vector<float> scales;
    std::vector<const half*> key_rows, value_rows;
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
        const long row = long(a.d) * bytes_of(a.kind);
        packed_keys.resize(size_t(up(a.keys, KEYS)) * a.d);
        packed_values.resize(size_t(up(a.keys, KEYS)) * a.width);
        rounded_keys.resize(a.kind == F32 ? 0 : size_t(up(a.keys, KEYS)) * row);
        scales.resize(up(a.keys, KEYS));
        blocks.clear();
        for (int j = 0; j < a.keys; j += KEYS) {
            const int n = std::min(KEYS, a.keys - j);
            half *k = &packed_keys[size_t(j) * a.d], *v = &packed_values[size_t(j) * a.width];
            pack_keys(&key_rows[j], n, a.d, k);
            pack_values(&value_rows[j], n, a.width, v);
            if (a.kind == F32) {
                blocks.push_back({k, nullptr, v, n});
                continue;
            }
            char* rounded = &rounded_keys[size_t(j) * row];
            round_keys(k, nullptr, n, a.d, a.kind, rounded, &scales[j]);
            blocks.push_back({rounded, &scales[j], v, n});
        }
    }

    void run(const Attention& a, int window, int head, int first, const std::vector<Block>& over) {
        const long start = long(window) * a.queries + first;
        auto token = [&](int r) { return a.q_index ? long(a.q_index[start + r]) : start + r; };
        int rows = std::min(QUERIES, a.queries - first);
        while (rows && token(rows - 1) < 0) rows--;
        auto query = [&](int r) { return a.q + token(r) * a.ld_q + head * a.d; };
        auto out = [&](int r) { return a.out + token(r) * a.ld_out + head * a.width; };
        attend_tile(tile, over, rows, a.d, a.width, a.kind, a.scale, query, out);
    }
};

}  // namespace
