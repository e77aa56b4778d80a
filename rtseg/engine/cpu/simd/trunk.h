// Convolutional trunks on rows [side * side, c], channels last: depthwise convolutions, the stem, and inverted residual
// blocks (arXiv 1801.04381), which are done some rows of the map at a time, so that what is expanded stays in the cache.
#pragma once

#include "layers.h"

namespace {

constexpr int PIXELS = 5;              // results of a depthwise convolution at once: their sums stay in registers
constexpr long KEPT = 640 * 1024;      // bytes of expanded rows at once: they stay in L2

struct Depthwise {
    const float* weight;  // [c / 16, side * side, 16]
    const float* bias;
    int c, side, stride;
    int before;      // zeros before the first pixel of a row or column
    int activation;  // after it
};

// Where the rows of a depthwise convolution come from: a map, a layer on a map, or the stem on a picture.
struct Source {
    const float* x;  // rows of the map, `ld` apart; or the planes [3, 2 * side, 2 * side] of a picture
    long ld;
    const Linear* layer;  // null: the map itself
    int stem;             // whether `layer` is a 3x3 convolution of stride 2 on a picture
    int before;           // its zeros before the first pixel
    int activation;       // after the layer
    int k;                // channels of the map
    int side;             // of the map that the depthwise convolution takes
};

// `Z` neighbouring results, from z on, of every channel: [Z, c]. `rows`: where the row of each tap begins, zeros included.
template <int K, int Z>
inline void convolve(const Depthwise& d, const float* const* rows, int z, float* out) {
    const long c = d.c, step = d.stride * c;
    const float* weight = d.weight;
    const F low = set(d.activation == NONE || d.activation == GELU ? -INF : 0.f), high = set(d.activation == RELU6 ? 6.f : INF);
    for (int i = 0; i < c; i += LANES) {
        F sum[Z];
#pragma GCC unroll 5
        for (int j = 0; j < Z; j++) sum[j] = load(d.bias + i);
        for (int v = 0; v < K; v++) {
            const float* x = rows[v] + z * step + i;
#pragma GCC unroll 1
            for (int h = 0; h < K; h++, x += c, weight += LANES) {
                const F w = load(weight);
#pragma GCC unroll 5
                for (int j = 0; j < Z; j++) sum[j] = fma(load(x + j * step), w, sum[j]);
            }
        }
#pragma GCC unroll 5
        for (int j = 0; j < Z; j++) store(out + j * c + i, least(most(sum[j], low), high));
    }
    if (d.activation == GELU) gelu_row(out, Z * c);
}

template <int K>
inline void convolve(const Depthwise& d, const float* const* rows, int z, int n, float* out) {
    switch (n) {
        case 5: return convolve<K, 5>(d, rows, z, out);
        case 4: return convolve<K, 4>(d, rows, z, out);
        case 3: return convolve<K, 3>(d, rows, z, out);
        case 2: return convolve<K, 2>(d, rows, z, out);
        default: return convolve<K, 1>(d, rows, z, out);
    }
}

// Up to PIXELS results, from z on.
inline void convolve(const Depthwise& d, const float* const* rows, int z, int n, float* out) {
    if (d.side == 3) return convolve<3>(d, rows, z, n, out);
    if (d.side == 5) return convolve<5>(d, rows, z, n, out);
    convolve<7>(d, rows, z, n, out);
}

// The rows of a map that a depthwise convolution needs next, with zeros around them; a row takes the place of an old one.
struct Kept {
    std::vector<float> data, zeros;
    long c, width;  // channels; pixels of a row
    int tall, side, before;

    void fit(const Depthwise& d, int side_, int low, int tall_) {
        c = d.c, tall = tall_, side = side_, before = d.before;
        width = std::max(d.before + side, (low - 1) * d.stride + d.side);
        data.resize(size_t(tall) * width * c);
        if (zeros.size() < size_t(width * c)) zeros.resize(size_t(width * c), 0.f);
        for (int y = 0; y < tall; y++) {
            float* start = &data[size_t(y) * width * c];
            std::fill_n(start, before * c, 0.f);
            std::fill(start + (before + side) * c, start + width * c, 0.f);
        }
    }
    float* pixels(int y) { return &data[size_t(y % tall) * width * c] + before * c; }
    const float* row(int y) const { return y < 0 || y >= side ? zeros.data() : &data[size_t(y % tall) * width * c]; }
};

// The rows y of a picture's planes that a 3x3 convolution of stride 2 needs, with zeros around them: [3, 3, size + 2].
inline void patch_rows(const float* image, int size, int before, int y, std::vector<float>& out) {
    const int wide = size + 2;
    out.assign(size_t(9) * wide, 0.f);
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 3; v++)
            if (const int at = 2 * y + v - before; at >= 0 && at < size)
                std::memcpy(&out[size_t(c * 3 + v) * wide + before], image + (long(c) * size + at) * size, sizeof(float) * size);
}

// One row of the stem's results; `out(pixel, column, 16 results)`.
template <class Out>
inline void stem_row(const Linear& l, const float* image, int size, int before, int y, Out out) {
    static thread_local std::vector<float> patch;
    patch_rows(image, size, before, y, patch);
    int distance[27];
    for (int i = 0; i < 27; i++) distance[i] = ((i / 3) * (size + 2) + i % 3) * int(sizeof(float));
    gemm_from<F32Dot>(Listed{(const char*)patch.data(), distance}, 2 * sizeof(float), l.weight, size / 2, l.n, 27,
                      [&](int r, int c, F v) { out(r, c, l.bias ? add(v, load(l.bias + c)) : v); });
}

// Rows `first` to `last` of what the depthwise convolution takes.
inline void fill_rows(const Source& s, int first, int last, Kept& kept) {
    const long c = kept.c;
    const int activation = s.activation == GELU ? NONE : s.activation, rows = (last - first) * s.side;
    if (s.stem) {
        for (int y = first; y < last; y++) {
            float* to = kept.pixels(y);
            stem_row(*s.layer, s.x, 2 * s.side, s.before, y,
                     [=](int r, int col, F v) { store(to + r * c + col, activate(v, activation)); });
        }
    } else if (s.layer) {
        static thread_local Rows a;
        static thread_local std::vector<float*> places;
        take_rows(Input{s.x, s.ld, 0, s.k, {}}, first * s.side, rows, *s.layer, a);
        places.resize(rows);
        for (int r = 0; r < rows; r++) places[r] = kept.pixels(first + r / s.side) + r % s.side * c;
        float* const* to = places.data();  // a thread's own variable is looked up by a call at every use
        product(a, rows, *s.layer, [=](int r, int col, F v) { store(to[r] + col, activate(v, activation)); });
    } else {
        for (int y = first; y < last; y++)
            for (int z = 0; z < s.side; z++)
                std::memcpy(kept.pixels(y) + z * c, s.x + (long(y) * s.side + z) * s.ld, sizeof(float) * c);
    }
    for (int y = first; s.activation == GELU && y < last; y++) gelu_row(kept.pixels(y), s.side * c);
}

// The rows of a convolution's result [low, low, ..], shared out in bands among the threads, and in each some rows at a
// time: `work(first row, rows, kept)`, where `kept` has the rows that these are made of.
template <class Work>
inline void by_rows(const Source& s, const Depthwise& d, int low, Work work) {
    const int bands = std::min(rt::threads(), low);
    rt::parallel(bands, [&](int band) {
        static thread_local Kept kept;
        const int top = low * band / bands, bottom = low * (band + 1) / bands;
        const long row = long(s.side + d.side) * d.c * sizeof(float);
        const int fit = (int(KEPT / row) - d.side + d.stride) / d.stride;
        const int some = std::max(1, std::min({fit, (CHUNK + low - 1) / low, bottom - top}));
        kept.fit(d, s.side, low, std::min(s.side, (some - 1) * d.stride + d.side));
        int ready = std::max(0, top * d.stride - d.before);
        for (int y = top; y < bottom; y += some) {
            const int n = std::min(some, bottom - y), needed = std::min(s.side, (y + n - 1) * d.stride - d.before + d.side);
            if (needed > ready) fill_rows(s, ready, needed, kept), ready = needed;
            work(y, n, static_cast<const Kept&>(kept));
        }
    });
}

// The results of a depthwise convolution in `n` rows from `y` on; `take(pixel, pixels, numbers [pixels, c])`, the pixels
// counted from the first of these rows.
template <class Take>
inline void mixed_rows(const Depthwise& d, const Kept& kept, int y, int n, int low, Take take) {
    static thread_local std::vector<float> held;
    held.resize(size_t(PIXELS) * d.c);
    float* numbers = held.data();
    for (int r = 0; r < n; r++) {
        const float* rows[7];
        for (int v = 0; v < d.side; v++) rows[v] = kept.row((y + r) * d.stride - d.before + v);
        for (int z = 0; z < low; z += PIXELS) {
            const int pixels = std::min(PIXELS, low - z);
            convolve(d, rows, z, pixels, numbers);
            take(r * low + z, pixels, numbers);
        }
    }
}

}  // namespace

extern "C" {

// A 3x3 convolution of stride 2 on the planes [3, size, size] of a picture: rows [size / 2 * size / 2, n].
void RT(stem)(const Linear* l, const float* image, int size, int before, const Output* o) {
    const int side = size / 2;
    rt::parallel(side, [&](int y) {
        stem_row(*l, image, size, before, y, [=](int r, int c, F v) { put(*o, long(y) * side + r, c, v); });
    });
}

// A depthwise convolution of what `s` gives: rows [low * low, c].
void RT(depthwise)(const Source* s, const Depthwise* d, int low, float* out) {
    by_rows(*s, *d, low, [=](int y, int n, const Kept& kept) {
        float* to = out + long(y) * low * d->c;
        mixed_rows(*d, kept, y, n, low, [=](int at, int pixels, const float* numbers) {
            std::memcpy(to + long(at) * d->c, numbers, sizeof(float) * pixels * d->c);
        });
    });
}

// layer(depthwise(what `s` gives)) + added: an inverted residual block.
void RT(inverted)(const Source* s, const Depthwise* d, const Linear* l, int low, const Output* o) {
    by_rows(*s, *d, low, [=](int y, int n, const Kept& kept) {
        static thread_local Rows own;
        Rows& a = own;
        const int levels = l->levels(), c = d->c;
        a.fit(n * low, l->k, l->kind);
        mixed_rows(*d, kept, y, n, low, [&](int at, int pixels, const float* numbers) {
            for (int j = 0; j < pixels; j++) round_row(numbers + long(j) * c, c, l->k, l->kind, levels, a, at + j);
        });
        product(a, n * low, *l, [=](int r, int col, F v) { put(*o, long(y) * low + r, col, v); });
    });
}

// x + two(activation(one(x))) with x = depthwise(what `s` gives): a block of RepViT (arXiv 2307.09283).
void RT(mixed)(const Source* s, const Depthwise* d, const Linear* one, const Linear* two, int activation, int low,
               const Output* o) {
    by_rows(*s, *d, low, [=](int y, int n, const Kept& kept) {
        static thread_local Rows a;
        static thread_local std::vector<float> own;
        const long c = d->c;
        own.resize(size_t(n) * low * c);
        float* x = own.data();
        mixed_rows(*d, kept, y, n, low, [=](int at, int pixels, const float* numbers) {
            std::memcpy(x + at * c, numbers, sizeof(float) * pixels * c);
        });
        take_rows(Input{x, c, 0, int(c), {}}, 0, n * low, *one, a);
        two_products(a, n * low, *one, *two, activation, [=](int r, int col, F v) {
            put(*o, long(y) * low + r, col, add(v, load(x + r * c + col)));
        });
    });
}

// A 3x3 convolution of stride 2 of what `s` gives, `k` of its channels, with as many zeros before as `d` says: rows
// [low * low, n]. Weights [n, 9 * k], packed; tap by tap.
void RT(dense)(const Source* s, const Depthwise* d, const Linear* l, int k, int low, const Output* o) {
    by_rows(*s, *d, low, [=](int y, int n, const Kept& kept) {
        static thread_local Rows own;
        static thread_local std::vector<float> taps;
        Rows& a = own;
        const int levels = l->levels();
        a.fit(n * low, l->k, l->kind);
        taps.resize(size_t(9) * k);
        for (int i = 0; i < n * low; i++) {
            for (int tap = 0; tap < 9; tap++) {
                const float* row = kept.row((y + i / low) * d->stride - d->before + tap / 3);
                std::memcpy(&taps[size_t(tap) * k], row + long(i % low * d->stride + tap % 3) * d->c, sizeof(float) * k);
            }
            round_row(taps.data(), 9 * k, l->k, l->kind, levels, a, i);
        }
        product(a, n * low, *l, [=](int r, int col, F v) { put(*o, long(y) * low + r, col, v); });
    });
}

}  // extern "C"
