// The products of a tracked frame on a CPU with AVX-512 BF16 and VNNI, with what surrounds them fused in.
//
// One matrix kernel (`gemm`) serves everything: linear layers, queries by keys, probabilities by values. It multiplies
// rows of A, broadcast a few numbers at a time, with a B that is packed in panels of up to 64 columns, in bf16 pairs or
// int8 quadruples, and gives each 16 results to an epilogue. Activations between layers stay float32; what enters a
// product is rounded to bf16, or to int8 with one scale a row. Only plain pointers cross the border to Python.
//
// Compiled by rtseg/engine/cpu_kernels.py. OpenMP comes from the library that torch has loaded, so that there is one
// pool of threads.

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;
constexpr int LANES = 16;        // floats in a register
constexpr int PANEL = 4;         // registers across a panel of B: 64 columns
constexpr int ROWS = 6;          // rows of A at once: 6 x 4 accumulators, 4 of B and a broadcast fill the registers
constexpr int CHUNK = 96;        // rows that a thread takes through a whole layer: they stay in its L2
constexpr int QUERIES = 24;      // rows of an attention tile
constexpr int KEYS = 256;        // and its columns: the scores stay in L1
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
    static const float POLY[] = {6.74025873e-11f, -6.06681123e-9f, 2.44081734e-7f, -5.86055664e-6f, 9.49398541e-5f,
                                 -1.11285398e-3f, 9.81579470e-3f, -6.63236198e-2f, 3.98881009e-1f};
    __m512 p = _mm512_set1_ps(POLY[0]);
    for (int i = 1; i < int(sizeof(POLY) / sizeof(float)); i++) p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(POLY[i]));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(p, c, _mm512_set1_ps(0.5f)));
}

inline __m512 activate(__m512 x, int activation) {
    if (activation == GELU) return gelu(x);
    return activation == RELU ? _mm512_max_ps(x, _mm512_setzero_ps()) : x;
}

// ---------------------------------------------------------------------------------------------- matrix products

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

// ---------------------------------------------------------------------------------------------- linear layers

struct Norm {
    const float* gamma;  // null: none
    const float* beta;
    float eps;
};

struct Linear {
    const void* weight;  // packed
    const float* scale;  // of each output, int8 only
    const float* bias;   // null: none
    int n, k, kind;      // outputs; inputs, padded to the group; Kind
};

// Rows as a product wants them: bf16, or int8 with a scale and 128 * sum for each row.
struct Rows {
    std::vector<char> data;
    std::vector<float> scale;
    std::vector<int> offset;
    void fit(int rows, int k, int kind) {
        data.resize(size_t(rows) * k * (kind == BF16 ? 2 : 1));
        scale.resize(rows);
        offset.resize(rows);
    }
};

// One row of floats to bf16 or int8. Numbers past `k`, up to `padded`, are zero.
inline void round_row(const float* x, int k, int padded, int kind, Rows& to, int row) {
    if (kind == BF16) {
        bf16* out = (bf16*)to.data.data() + size_t(row) * padded;
        int i = 0;
        for (; i + LANES <= k; i += LANES) store_bf16(out + i, _mm512_loadu_ps(x + i));
        for (; i < k; i++) out[i] = to_bf16(x[i]);
        for (; i < padded; i++) out[i] = 0;
        return;
    }
    int8_t* out = (int8_t*)to.data.data() + size_t(row) * padded;
    __m512 most = _mm512_setzero_ps();
    int i = 0;
    for (; i + LANES <= k; i += LANES) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
    float top = _mm512_reduce_max_ps(most);
    for (; i < k; i++) top = std::max(top, std::fabs(x[i]));
    const float inverse = top > 0 ? 127.f / top : 0.f;
    __m512i sums = _mm512_setzero_si512();
    int sum = 0;
    for (i = 0; i + LANES <= k; i += LANES) {
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));
        sums = _mm512_add_epi32(sums, q);
        _mm_storeu_si128((__m128i*)(out + i), _mm512_cvtepi32_epi8(q));
    }
    for (; i < k; i++) sum += out[i] = (int8_t)std::lrintf(x[i] * inverse);
    for (; i < padded; i++) out[i] = 0;
    to.scale[row] = top / 127.f;
    to.offset[row] = 128 * (sum + _mm512_reduce_add_epi32(sums));
}

inline void normalise(const float* x, int k, const Norm& norm, float* out) {
    __m512 sum = _mm512_setzero_ps(), squares = sum;
    for (int i = 0; i < k; i += LANES) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / k);
    for (int i = 0; i < k; i += LANES) {
        const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
    }
    const __m512 factor = _mm512_set1_ps(1.f / std::sqrt(_mm512_reduce_add_ps(squares) / k + norm.eps));
    for (int i = 0; i < k; i += LANES) {
        const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), factor);
        _mm512_storeu_ps(out + i, _mm512_fmadd_ps(d, _mm512_loadu_ps(norm.gamma + i), _mm512_loadu_ps(norm.beta + i)));
    }
}

struct Input {
    const void* x;
    long ld;
    int kind;  // 0 float, 1 bf16
    int k;     // numbers in a row, before padding
    Norm norm;
};

inline void take_rows(const Input& in, int first, int rows, const Linear& to, Rows& out) {
    out.fit(rows, to.k, to.kind);
    std::vector<float> wide(in.k), normed(in.k);
    for (int r = 0; r < rows; r++) {
        const float* x = (const float*)in.x + (first + r) * in.ld;
        if (in.kind == 1) {
            const bf16* narrow = (const bf16*)in.x + (first + r) * in.ld;
            for (int i = 0; i < in.k; i += LANES) _mm512_storeu_ps(&wide[i], load_bf16(narrow + i));
            x = wide.data();
        }
        if (in.norm.gamma) {
            normalise(x, in.k, in.norm, normed.data());
            x = normed.data();
        }
        round_row(x, in.k, to.k, to.kind, out, r);
    }
}

template <class Store>
inline void product(const Rows& a, int rows, const Linear& l, Store store) {
    if (l.kind == BF16) {
        gemm<Bf16Dot>((const bf16*)a.data.data(), l.k, (const bf16*)l.weight, rows, l.n, l.k,
                      [&](int r, int c, __m512 sum) {
                          store(r, c, l.bias ? _mm512_add_ps(sum, _mm512_loadu_ps(l.bias + c)) : sum);
                      });
    } else {
        gemm<Int8Dot>((const int8_t*)a.data.data(), l.k, (const int8_t*)l.weight, rows, l.n, l.k,
                      [&](int r, int c, __m512i sum) {
                          __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(a.offset[r])));
                          v = _mm512_mul_ps(v, _mm512_mul_ps(_mm512_set1_ps(a.scale[r]), _mm512_loadu_ps(l.scale + c)));
                          store(r, c, l.bias ? _mm512_add_ps(v, _mm512_loadu_ps(l.bias + c)) : v);
                      });
    }
}

struct Output {
    void* out;
    long ld;
    int kind;            // 0 float, 1 bf16
    int activation;
    const float* added;  // null: none; the residual, or a table
    long ld_added;
    int period;          // rows of the table, which begins anew after them
};

inline void put(const Output& o, long row, int col, __m512 v) {
    v = activate(v, o.activation);
    if (o.added) {
        const long at = row < o.period ? row : row % o.period;
        v = _mm512_add_ps(v, _mm512_loadu_ps(o.added + at * o.ld_added + col));
    }
    if (o.kind == 0) _mm512_storeu_ps((float*)o.out + row * o.ld + col, v);
    else store_bf16((bf16*)o.out + row * o.ld + col, v);
}

inline int chunk_of(int rows) {
    const int threads = omp_get_max_threads(), share = (rows + threads - 1) / threads;
    const int pieces = (share + CHUNK - 1) / CHUNK;
    return up((share + pieces - 1) / pieces, ROWS);
}

// ---------------------------------------------------------------------------------------------- attention

// Keys [n, d] as a B of d rows and n columns, n filled up to 16 with zeros.
inline void pack_keys(const bf16* const* key, int n, int d, bf16* out) {
    const int wide = up(n, LANES);
    for (int j = 0; j < wide; j += LANES) {
        const int panel = j / (PANEL * LANES), width = std::min(PANEL * LANES, wide - panel * PANEL * LANES);
        bf16* to = out + long(panel) * PANEL * LANES * d + (j % (PANEL * LANES)) * 2;
        for (int i = 0; i < d; i += 2) {
            uint32_t* cell = (uint32_t*)(to + long(i / 2) * width * 2);
            for (int lane = 0; lane < LANES; lane++)
                if (j + lane < n) std::memcpy(cell + lane, key[j + lane] + i, 4);
                else cell[lane] = 0;
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
                const __m512i pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(a),
                                                      _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
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
                const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(&held[size_t(i + k) * LANES]), inverse));
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
        sum.assign(size_t(QUERIES) * width, 0.f);
        std::fill_n(most, QUERIES, -INF);
        std::fill_n(total, QUERIES, 0.f);
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
            const float now = std::max(most[r], _mm512_reduce_max_ps(top) * base2);
            faded[r] = std::exp2(most[r] - now);
            most[r] = now;
            __m512 added = _mm512_setzero_ps();
            for (int j = 0; j < wide; j += LANES) {
                const __m512 e = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(base2),
                                                         _mm512_set1_ps(now)));
                added = _mm512_add_ps(added, e);
                store_bf16(weights + r * KEYS + j, e);
            }
            total[r] = total[r] * faded[r] + _mm512_reduce_add_ps(added);
        }
    }

    void score(const Block& b) {
        if (!b.scale) {
            gemm<Bf16Dot>(queries.data(), d, (const bf16*)b.keys, rows, up(b.n, LANES), d,
                          [&](int r, int c, __m512 v) { _mm512_storeu_ps(scores + r * KEYS + c, v); });
            return;
        }
        gemm<Int8Dot>((const int8_t*)rounded.data.data(), d, (const int8_t*)b.keys, rows, up(b.n, LANES), d,
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
            _mm512_storeu_ps(at, _mm512_fmadd_ps(_mm512_loadu_ps(at), _mm512_set1_ps(faded[r]), v));
        });
    }

    void finish(int r, bf16* out) const {
        const __m512 share = _mm512_set1_ps(1.f / total[r]);
        for (int c = 0; c < width; c += LANES)
            store_bf16(out + c, _mm512_mul_ps(_mm512_loadu_ps(&sum[size_t(r) * width + c]), share));
    }
};

template <class Query, class Out>
inline void attend_tile(Tile& tile, const std::vector<Block>& blocks, int rows, int d, int width, float scale, Query query,
                        Out out) {
    tile.start(rows, d, width, blocks[0].scale != nullptr, query);
    for (const Block& b : blocks) tile.look(b, scale);
    for (int r = 0; r < rows; r++) tile.finish(r, out(r));
}

}  // namespace

struct Attention {
    const bf16 *q, *k, *v;       // [token, ld]; head h begins at h * d (values: h * width)
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
            if (a.int8) blocks.push_back({&rounded_keys[size_t(j) * a.d], &scales[j], v, n});
            else blocks.push_back({k, nullptr, v, n});
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

extern "C" {

long rt_packed_size(int n, int k, int kind) { return long(n) * up(k, kind == BF16 ? 2 : 4); }

// Weights [n, k] of float32 to a packed B; `scale` [n] is written for int8.
void rt_pack_weight(const float* w, int n, int k, int kind, void* out, float* scale) {
    const int group = kind == BF16 ? 2 : 4, padded = up(k, group);
    for (int c = 0; c < n; c++) {
        float top = 0;
        for (int i = 0; i < k; i++) top = std::max(top, std::fabs(w[long(c) * k + i]));
        if (kind == INT8) scale[c] = top / 127.f;
        const float inverse = top > 0 ? 127.f / top : 0.f;
        for (int i = 0; i < padded; i++) {
            const float x = i < k ? w[long(c) * k + i] : 0.f;
            const long at = packed_at(c, i, n, padded, group);
            if (kind == BF16) ((bf16*)out)[at] = to_bf16(x);
            else ((uint8_t*)out)[at] = (uint8_t)(std::lrintf(x * inverse) + 128);
        }
    }
}

// out = activation(linear(norm(x))) + added
void rt_linear(const Linear* l, int rows, const Input* in, const Output* o) {
    const int chunk = chunk_of(rows);
#pragma omp parallel for schedule(dynamic)
    for (int first = 0; first < rows; first += chunk) {
        static thread_local Rows a;
        const int n = std::min(chunk, rows - first);
        take_rows(*in, first, n, *l, a);
        product(a, n, *l, [&](int r, int c, __m512 v) { put(*o, first + r, c, v); });
    }
}

// out = last(activation(first(norm(x)))) + added; what is between stays in the cache
void rt_mlp(const Linear* one, const Linear* two, int activation, int rows, const Input* in, const Output* o) {
    const int chunk = chunk_of(rows);
#pragma omp parallel for schedule(dynamic)
    for (int first = 0; first < rows; first += chunk) {
        static thread_local Rows a, b;
        static thread_local std::vector<float> hidden;
        const int n = std::min(chunk, rows - first);
        take_rows(*in, first, n, *one, a);
        b.fit(n, two->k, two->kind);
        if (two->kind == BF16) {
            bf16* to = (bf16*)b.data.data();
            product(a, n, *one, [&](int r, int c, __m512 v) { store_bf16(to + size_t(r) * two->k + c, activate(v, activation)); });
        } else {
            hidden.resize(size_t(n) * one->n);
            product(a, n, *one, [&](int r, int c, __m512 v) { _mm512_storeu_ps(&hidden[size_t(r) * one->n + c], activate(v, activation)); });
            for (int r = 0; r < n; r++) round_row(&hidden[size_t(r) * one->n], one->n, two->k, two->kind, b, r);
        }
        product(b, n, *two, [&](int r, int c, __m512 v) { put(*o, first + r, c, v); });
    }
}

void rt_norm(const Input* in, int rows, float* out_float, bf16* out_bf16) {
#pragma omp parallel for
    for (int r = 0; r < rows; r++) {
        float normed[2048];
        normalise((const float*)in->x + r * in->ld, in->k, in->norm, out_float ? out_float + long(r) * in->k : normed);
        if (!out_bf16) continue;
        const float* from = out_float ? out_float + long(r) * in->k : normed;
        for (int i = 0; i < in->k; i += LANES) store_bf16(out_bf16 + long(r) * in->k + i, _mm512_loadu_ps(from + i));
    }
}

void rt_attention(const Attention* given) {
    const Attention a = *given;
    const int tiles = (a.queries + QUERIES - 1) / QUERIES, whole = a.windows * a.heads;
    if (whole >= 2 * omp_get_max_threads()) {
#pragma omp parallel for schedule(dynamic)
        for (int i = 0; i < whole; i++) {
            static thread_local Window w;
            w.pack(a, i / a.heads, i % a.heads);
            for (int t = 0; t < tiles; t++) w.run(a, i / a.heads, i % a.heads, t * QUERIES, w.blocks);
        }
        return;
    }
    static thread_local std::vector<Window> packed;  // few and large: the queries are shared out instead
    packed.resize(std::max(packed.size(), size_t(whole)));
    Window* all = packed.data();
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < whole; i++) all[i].pack(a, i / a.heads, i % a.heads);
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < whole * tiles; i++) {
        static thread_local Window w;
        w.run(a, i / tiles / a.heads, i / tiles % a.heads, i % tiles * QUERIES, all[i / tiles].blocks);
    }
}

// Keys or values [n, d] of a memory, packed in blocks of KEYS (the last may be shorter).
void rt_pack_keys(const bf16* keys, int n, int d, bf16* out) {
    const auto rows = rows_of(keys, n, d);
    for (int j = 0; j < n; j += KEYS) pack_keys(&rows[j], std::min(KEYS, n - j), d, out + long(j) * d);
}

void rt_pack_values(const bf16* values, int n, int d, bf16* out) {
    const auto rows = rows_of(values, n, d);
    for (int j = 0; j < n; j += KEYS) pack_values(&rows[j], std::min(KEYS, n - j), d, out + long(j) * d);
}

// Packed keys [layers, n up to 16, d], plus a table packed likewise (null: nothing), to int8 with a scale for each key.
void rt_round_keys(const bf16* keys, const bf16* added, int layers, int n, int d, uint8_t* out, float* scale) {
    const int tall = up(n, LANES), blocks = (n + KEYS - 1) / KEYS;
#pragma omp parallel for
    for (int i = 0; i < layers * blocks; i++) {
        const int row = i / blocks * tall + i % blocks * KEYS;
        const long at = long(row) * d;
        round_keys(keys + at, added ? added + at : nullptr, std::min(KEYS, n - i % blocks * KEYS), d, out + at, scale + row);
    }
}

// Queries [rows, d] of one object over its packed memories: `count[i]` keys at `keys[i]`, `values[i]`; with `scales`
// (not null) the keys are int8.
void rt_read(const bf16* q, int rows, int d, int width, float scale, int memories, const char* const* keys,
             const float* const* scales, const bf16* const* values, const int* count, bf16* out) {
    std::vector<Block> blocks;
    for (int m = 0; m < memories; m++)
        for (int j = 0; j < count[m]; j += KEYS)
            blocks.push_back({keys[m] + long(j) * d * (scales ? 1 : 2), scales ? scales[m] + j : nullptr,
                              values[m] + long(j) * width, std::min(KEYS, count[m] - j)});
#pragma omp parallel for schedule(dynamic)
    for (int first = 0; first < rows; first += QUERIES) {
        static thread_local Tile tile;
        attend_tile(tile, blocks, std::min(QUERIES, rows - first), d, width, scale,
                    [&](int r) { return q + long(first + r) * d; }, [&](int r) { return out + long(first + r) * width; });
    }
}

// out = a + b, in bf16
void rt_add(const bf16* a, const bf16* b, long n, bf16* out) {
#pragma omp parallel for
    for (long i = 0; i < n; i += 1 << 14)
        for (long j = i; j < std::min(n, i + (1 << 14)); j += LANES)
            store_bf16(out + j, _mm512_add_ps(load_bf16(a + j), load_bf16(b + j)));
}

// Axial RoPE in place on [rows, d], pairs half a row apart; row r has angle r mod period: tables [period, d / 2].
void rt_rotate(bf16* x, int rows, int d, long ld, const float* cosine, const float* sine, int period) {
#pragma omp parallel for
    for (int r = 0; r < rows; r++) {
        bf16 *one = x + r * ld, *two = one + d / 2;
        const float *c = cosine + long(r % period) * (d / 2), *s = sine + long(r % period) * (d / 2);
        for (int i = 0; i < d / 2; i += LANES) {
            const __m512 a = load_bf16(one + i), b = load_bf16(two + i);
            const __m512 cs = _mm512_loadu_ps(c + i), sn = _mm512_loadu_ps(s + i);
            store_bf16(one + i, _mm512_fmsub_ps(a, cs, _mm512_mul_ps(b, sn)));
            store_bf16(two + i, _mm512_fmadd_ps(b, cs, _mm512_mul_ps(a, sn)));
        }
    }
}

// 2x2 max pooling of [h, w, c] of float (kind 0) or bf16 (kind 1), rows of `ld` numbers, to [h / 2, w / 2, c].
void rt_pool(const void* x, int kind, int h, int w, int c, long ld, void* out) {
#pragma omp parallel for
    for (int r = 0; r < h / 2; r++)
        for (int q = 0; q < w / 2; q++)
            for (int i = 0; i < c; i += LANES) {
                auto at = [&](int y, int z) {
                    const long cell = (long(2 * r + y) * w + 2 * q + z) * ld + i;
                    return kind == 0 ? _mm512_loadu_ps((const float*)x + cell) : load_bf16((const bf16*)x + cell);
                };
                const __m512 most = _mm512_max_ps(_mm512_max_ps(at(0, 0), at(0, 1)), _mm512_max_ps(at(1, 0), at(1, 1)));
                const long cell = (long(r) * (w / 2) + q) * c + i;
                if (kind == 0) _mm512_storeu_ps((float*)out + cell, most);
                else store_bf16((bf16*)out + cell, most);
            }
}

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
            const __m512 mean = _mm512_mul_ps(_mm512_set1_ps(0.25f), _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]),
                                                                                   _mm512_add_ps(sum[2], sum[3])));
            __m512 squares = _mm512_setzero_ps();
            for (auto& s : sum) s = _mm512_sub_ps(s, mean), squares = _mm512_fmadd_ps(s, s, squares);
            const __m512 spread = _mm512_sqrt_ps(_mm512_fmadd_ps(squares, _mm512_set1_ps(0.25f), _mm512_set1_ps(norm->eps)));
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
                if (v < 0 || h < 0) std::memset(to, 0, size_t(c) * 2);
                else std::memcpy(to, x + (long(v) * side + h) * c, size_t(c) * 2);
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
                _mm512_storeu_ps(row + i, _mm512_add_ps(_mm512_loadu_ps(from + i), _mm512_loadu_ps(added + cell * c + i)));
            if (norm->gamma) normalise(row, c, *norm, row);
            __m512 sum = _mm512_setzero_ps();
            for (int i = 0; i < c; i += LANES) {
                const __m512 v = gelu(_mm512_loadu_ps(row + i));
                if (mix) sum = _mm512_fmadd_ps(v, _mm512_loadu_ps(mix + i), sum);
                else store_bf16((bf16*)out + cell * c + i, v);
            }
            if (mix) ((float*)out)[cell] = _mm512_reduce_add_ps(sum);
        }
}

}  // extern "C"
