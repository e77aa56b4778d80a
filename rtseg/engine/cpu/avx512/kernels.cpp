// The products of a tracked frame on a CPU with AVX-512 BF16 and VNNI, with what surrounds them fused in.
//
// What flows between layers stays float32; what enters a product is rounded to bf16, or to int8 with one scale a row.
// Only plain pointers cross the border to Python (rtseg/engine/cpu/kernels.py, which compiles this). OpenMP comes from
// the library that torch has loaded, so that there is one pool of threads.

#include "attention.h"
#include "layers.h"
#include "mask.h"
#include "picture.h"

extern "C" {

int rt_threads() { return omp_get_max_threads(); }

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
            if (kind == BF16)
                ((bf16*)out)[at] = to_bf16(x);
            else
                ((uint8_t*)out)[at] = (uint8_t)(std::lrintf(x * inverse) + 128);
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

// RGB bytes [.., width, 3], rows of `ld` bytes, to the normalised image [3, size, size]; `scale` and `shift` have four
// numbers, the last without meaning.
void rt_picture(const uint8_t* image, long ld, int width, int size, const Axis* rows, const Axis* columns,
                const float* scale, const float* shift, float* out) {
    const __m128 times = _mm_loadu_ps(scale), minus = _mm_loadu_ps(shift);
#pragma omp parallel for
    for (int y = 0; y < size; y++) {
        static thread_local std::vector<float> row;
        row.resize(3 * width + LANES);
        mix_rows(image, ld, *rows, y, 3 * width, row.data());
        const long at = long(y) * size, plane = long(size) * size;
        float* planes[3] = {out + at, out + plane + at, out + 2 * plane + at};
        for (int x = 0; x < size; x += 4) mix_columns(row.data(), *columns, x, times, minus, planes);
    }
}

// Hiera's first layer: overlapping 7x7 patches at stride 4 of a float image [3, size, size], zeros around it.
void rt_patches(const Linear* l, const float* image, int size, const Output* o) {
    const int side = size / 4, rows = side * side, chunk = chunk_of(rows);
#pragma omp parallel for schedule(dynamic)
    for (int first = 0; first < rows; first += chunk) {
        static thread_local Rows a;
        const int n = std::min(chunk, rows - first);
        a.fit(n, l->k, BF16);
        for (int r = 0; r < n; r++) {
            float patch[3 * 49] = {};
            const int y = 4 * ((first + r) / side) - 3, x = 4 * ((first + r) % side) - 3, left = std::max(0, -x);
            for (int c = 0; c < 3; c++)
                for (int v = std::max(0, -y); v < std::min(7, size - y); v++)
                    std::memcpy(patch + c * 49 + v * 7 + left, image + (long(c) * size + y + v) * size + x + left,
                                sizeof(float) * (std::min(7, size - x) - left));
            round_row(patch, 3 * 49, l->k, BF16, a, r);
        }
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
            product(a, n, *one,
                    [&](int r, int c, __m512 v) { store_bf16(to + size_t(r) * two->k + c, activate(v, activation)); });
        } else {
            hidden.resize(size_t(n) * one->n);
            product(a, n, *one, [&](int r, int c, __m512 v) {
                _mm512_storeu_ps(&hidden[size_t(r) * one->n + c], activate(v, activation));
            });
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
        round_keys(keys + at, added ? added + at : nullptr, std::min(KEYS, n - i % blocks * KEYS), d, out + at,
                   scale + row);
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
        attend_tile(
            tile, blocks, std::min(QUERIES, rows - first), d, width, scale,
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
                if (kind == 0)
                    _mm512_storeu_ps((float*)out + cell, most);
                else
                    store_bf16((bf16*)out + cell, most);
            }
}

}  // extern "C"
