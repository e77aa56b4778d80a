// The products of a tracked frame, with what surrounds them fused in; compiled once for each instruction set.
//
// What flows between layers stays float32; what enters a product is rounded to the layer's kind, int16 and int8 with
// one scale a row. Only plain pointers cross the border to Python (rtseg/engine/cpu/kernels.py).

#define RT_JOIN(isa, name) rt_##isa##_##name
#define RT_NAME(isa, name) RT_JOIN(isa, name)
#define RT(name) RT_NAME(RT_ISA, name)

#include "attention.h"
#include "edges.h"
#include "layers.h"
#include "mask.h"
#include "match.h"
#include "picture.h"
#include "trunk.h"

extern "C" {

// Bytes of a number that attention reads: 2 (bf16) or 4 (float).
int RT(half_bytes)() { return sizeof(half); }

// Whether this instruction set multiplies bytes; where not, int16 stands in for int8.
int RT(has_bytes)() { return RT_BF16 || RT_VNNI; }

void RT(threads)(int n) { rt::set_threads(n); }

// Weights [n, k] of float32 to a packed B of `kind`; `scale` [n] is written for int16 and int8.
void RT(pack_weight)(const float* w, int n, int k, int kind, void* out, float* scale) {
    const int group = group_of(kind), padded = up(k, group), levels = kind == INT8 ? 127 : levels_of(padded);
    for (int c = 0; c < n; c++) {
        float top = 0;
        for (int i = 0; i < k; i++) top = std::max(top, std::fabs(w[long(c) * k + i]));
        if (kind >= INT16) scale[c] = top / levels;
        const float inverse = top > 0 ? levels / top : 0.f;
        for (int i = 0; i < padded; i++) {
            const float x = i < k ? w[long(c) * k + i] : 0.f;
            const long at = packed_at(c, i, n, padded, group);
            if (kind == F32) ((float*)out)[at] = x;
            if (kind == BF16) ((bf16*)out)[at] = to_bf16(x);
            if (kind == INT16) ((int16_t*)out)[at] = (int16_t)std::lrintf(x * inverse);
            if (kind == INT8) ((uint8_t*)out)[at] = (uint8_t)(std::lrintf(x * inverse) + 128);
        }
    }
}

// out = activation(linear(norm(x))) + added
void RT(linear)(const Linear* l, int rows, const Input* in, const Output* o) {
    by_chunks(rows, [&](int first, int n) {
        static thread_local Rows a;
        take_rows(*in, first, n, *l, a);
        product(a, n, *l, [&](int r, int c, F v) { put(*o, first + r, c, v); });
    });
}

// RGB bytes [.., width, 3], rows of `ld` bytes, to the normalised image [3, size, size]; `scale` and `shift` have four
// numbers, the last without meaning.
void RT(picture)(const uint8_t* image, long ld, int width, int size, const Axis* rows, const Axis* columns,
                 const float* scale, const float* shift, float* out) {
    const __m128 times = _mm_loadu_ps(scale), minus = _mm_loadu_ps(shift);
    rt::parallel(size / 4, [&](int four) {
        static thread_local std::vector<float> row;
        row.resize(3 * width + LANES);
        for (int y = 4 * four; y < 4 * four + 4; y++) {
            mix_rows(image, ld, *rows, y, 3 * width, row.data());
            const long at = long(y) * size, plane = long(size) * size;
            float* planes[3] = {out + at, out + plane + at, out + 2 * plane + at};
            for (int x = 0; x < size; x += 4) mix_columns(row.data(), *columns, x, times, minus, planes);
        }
    });
}

// Hiera's first layer: overlapping 7x7 patches at stride 4 of a float image [3, size, size], zeros around it.
void RT(patches)(const Linear* l, const float* image, int size, const Output* o) {
    const int side = size / 4;
    by_chunks(side * side, [&](int first, int n) {
        static thread_local Rows a;
        a.fit(n, l->k, l->kind);
        const int levels = l->levels();
        for (int r = 0; r < n; r++) {
            float patch[3 * 49] = {};
            const int y = 4 * ((first + r) / side) - 3, x = 4 * ((first + r) % side) - 3, left = std::max(0, -x);
            const bool inside = y >= 0 && x >= 0 && y + 7 <= size && x + 7 <= size;
            for (int c = 0; c < 3; c++)
                for (int v = std::max(0, -y); v < std::min(7, size - y); v++) {
                    const float* from = image + (long(c) * size + y + v) * size + x;
                    if (inside)
                        std::memcpy(patch + c * 49 + v * 7, from, sizeof(float) * 7);  // of a known size: two moves
                    else
                        std::memcpy(patch + c * 49 + v * 7 + left, from + left,
                                    sizeof(float) * (std::min(7, size - x) - left));
                }
            round_row(patch, 3 * 49, l->k, l->kind, levels, a, r);
        }
        product(a, n, *l, [&](int r, int c, F v) { put(*o, first + r, c, v); });
    });
}

// out = last(activation(first(norm(x)))) + added; what is between stays in the cache
void RT(mlp)(const Linear* one, const Linear* two, int activation, int rows, const Input* in, const Output* o) {
    by_chunks(rows, [&](int first, int n) {
        static thread_local Rows a;
        take_rows(*in, first, n, *one, a);
        two_products(a, n, *one, *two, activation, [&](int r, int c, F v) { put(*o, first + r, c, v); });
    });
}

void RT(norm)(const Input* in, int rows, float* out_float, half* out_half) {
    rt::parallel((rows + 15) / 16, [&](int sixteen) {
        for (int r = 16 * sixteen; r < std::min(rows, 16 * sixteen + 16); r++) {
            float normed[2048];
            float* to = out_float ? out_float + long(r) * in->k : normed;
            normalise((const float*)in->x + r * in->ld, in->k, in->norm, to);
            for (int i = 0; out_half && i < in->k; i += LANES) store(out_half + long(r) * in->k + i, load(to + i));
        }
    });
}

void RT(attention)(const Attention* given) {
    Attention a = *given;
    if (a.kind == INT16 && a.queries < FEW) a.kind = F32;
    const int tiles = (a.queries + QUERIES - 1) / QUERIES, whole = a.windows * a.heads;
    if (whole >= 2 * rt::threads()) {
        rt::parallel(whole, [&](int i) {
            static thread_local Window w;
            w.pack(a, i / a.heads, i % a.heads);
            for (int t = 0; t < tiles; t++) w.run(a, i / a.heads, i % a.heads, t * QUERIES, w.blocks);
        });
        return;
    }
    static thread_local std::vector<Window> packed;  // few and large: the queries are shared out instead
    packed.resize(std::max(packed.size(), size_t(whole)));
    Window* all = packed.data();
    rt::parallel(whole, [&](int i) { all[i].pack(a, i / a.heads, i % a.heads); });
    rt::parallel(whole * tiles, [&](int i) {
        static thread_local Window w;
        w.run(a, i / tiles / a.heads, i / tiles % a.heads, i % tiles * QUERIES, all[i / tiles].blocks);
    });
}

// Keys or values [n, d] of a memory, packed in blocks of KEYS (the last may be shorter).
void RT(pack_keys)(const half* keys, int n, int d, half* out) {
    const auto rows = rows_of(keys, n, d);
    for (int j = 0; j < n; j += KEYS) pack_keys(&rows[j], std::min(KEYS, n - j), d, out + long(j) * d);
}

void RT(pack_values)(const half* values, int n, int d, half* out) {
    const auto rows = rows_of(values, n, d);
    for (int j = 0; j < n; j += KEYS) pack_values(&rows[j], std::min(KEYS, n - j), d, out + long(j) * d);
}

// Packed keys [layers, n up to 16, d], plus a table packed likewise (null: nothing), to int16 or int8 with a scale for
// each key.
void RT(round_keys)(const half* keys, const half* added, int layers, int n, int d, int kind, char* out, float* scale) {
    const int tall = up(n, LANES), blocks = (n + KEYS - 1) / KEYS;
    rt::parallel(layers * blocks, [&](int i) {
        const int row = i / blocks * tall + i % blocks * KEYS;
        const long at = long(row) * d;
        round_keys(keys + at, added ? added + at : nullptr, std::min(KEYS, n - i % blocks * KEYS), d, kind,
                   out + at * bytes_of(kind), scale + row);
    });
}

// Queries [rows, d] of one object over its packed memories: `count[i]` keys at `keys[i]`, `values[i]`; with `scales`
// (not null) the keys are of `kind`, else half.
void RT(read)(const half* q, int rows, int d, int width, int kind, float scale, int memories, const char* const* keys,
              const float* const* scales, const half* const* values, const int* count, half* out) {
    std::vector<Block> blocks;
    const long row = long(d) * (scales ? bytes_of(kind) : int(sizeof(half)));
    for (int m = 0; m < memories; m++)
        for (int j = 0; j < count[m]; j += KEYS)
            blocks.push_back({keys[m] + j * row, scales ? scales[m] + j : nullptr, values[m] + long(j) * width,
                              std::min(KEYS, count[m] - j)});
    rt::parallel((rows + QUERIES - 1) / QUERIES, [&](int i) {
        static thread_local Tile tile;
        const int first = i * QUERIES;
        attend_tile(
            tile, blocks, std::min(QUERIES, rows - first), d, width, scales ? kind : int(F32), scale,
            [&](int r) { return q + long(first + r) * d; }, [&](int r) { return out + long(first + r) * width; });
    });
}

// out = a + b of half
void RT(add)(const half* a, const half* b, long n, half* out) {
    constexpr long run = 1 << 14;
    rt::parallel(int((n + run - 1) / run), [&](int i) {
        for (long j = i * run; j < std::min(n, (i + 1) * run); j += LANES) store(out + j, add(load(a + j), load(b + j)));
    });
}

// Axial RoPE in place on [rows, d], pairs half a row apart; row r has angle r mod period: tables [period, d / 2].
void RT(rotate)(half* x, int rows, int d, long ld, const float* cosine, const float* sine, int period) {
    rt::parallel((rows + 63) / 64, [&](int part) {
        for (int r = 64 * part; r < std::min(rows, 64 * part + 64); r++) {
            half *one = x + r * ld, *two = one + d / 2;
            const float *c = cosine + long(r % period) * (d / 2), *s = sine + long(r % period) * (d / 2);
            for (int i = 0; i < d / 2; i += LANES) {
                const F a = load(one + i), b = load(two + i), cs = load(c + i), sn = load(s + i);
                store(one + i, fms(a, cs, mul(b, sn)));
                store(two + i, fma(b, cs, mul(a, sn)));
            }
        }
    });
}

// 2x2 max pooling of [h, w, c] of float (kind 0) or half (kind 1), rows of `ld` numbers, to [h / 2, w / 2, c].
void RT(pool)(const void* x, int kind, int h, int w, int c, long ld, void* out) {
    rt::parallel(h / 2, [&](int r) {
        for (int q = 0; q < w / 2; q++)
            for (int i = 0; i < c; i += LANES) {
                auto at = [&](int y, int z) {
                    const long cell = (long(2 * r + y) * w + 2 * q + z) * ld + i;
                    return kind == 0 ? load((const float*)x + cell) : load((const half*)x + cell);
                };
                const F top = most(most(at(0, 0), at(0, 1)), most(at(1, 0), at(1, 1)));
                const long cell = (long(r) * (w / 2) + q) * c + i;
                kind == 0 ? store((float*)out + cell, top) : store((half*)out + cell, top);
            }
    });
}

// Mask logits [h, w], already resized to `out` [4h, 4w], with their edges where the picture [4h, 4w, 3] has them.
void RT(edges)(const float* logits, int h, int w, const uint8_t* parts, const EdgeSettings* settings, float* out) {
    refine_edges(logits, h, w, parts, *settings, out);
}

// Unit vectors [4 side^2, d] of `Match`: those of `mid` plus `top` [side^2, d], resized to twice the side.
void RT(unit_cells)(const float* mid, const float* top, int side, int d, float* out) {
    rt::parallel(2 * side, [&](int y) { unit_cells(mid, top, side, d, y, out); });
}

// Unit vectors [rows, d] against remembered ones [d, n] with masks [n] of some objects: for each, the mask copied to each
// row, and the largest similarity, [2, rows].
void RT(match)(const float* cells, const float* remembered, const float* const* masks, int objects, int rows, int n,
               int d, int kind, float scale, float* const* out) {
    static thread_local std::vector<char> packed;
    packed.resize(size_t(n) * d * bytes_of(kind));
    char* keys = packed.data();
    for (int j = 0; j < n; j += LANES) pack_cells(remembered, n, d, kind, j, keys);
    rt::parallel((rows + QUERIES - 1) / QUERIES, [&](int i) {
        static thread_local Matching matching;
        const int first = i * QUERIES;
        matching.run(cells + long(first) * d, std::min(QUERIES, rows - first), keys, masks, objects, n, d, kind, scale, out,
                     first, rows);
    });
}

}  // extern "C"
