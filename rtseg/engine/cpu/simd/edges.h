// Logits of masks near edges, by the colours of the picture: the compiled form of `refine` in rtseg/base/edges.py,
// which says what is done, and why. A cell's 4 x 4 parts are the sixteen lanes.
#pragma once

#include "lanes.h"

namespace {

constexpr int TAPS = 25;  // 5 x 5 cells

struct EdgeSettings {
    float sure, clip, alike, any, back, noise;
    int few;
    const float* weights;  // [TAPS, 16]
};

using Bytes = std::vector<uint8_t>;

// Where a window of `reach` cells around holds a byte that is not 0 (any), or one that is (not any).
inline Bytes spread(const Bytes& x, int h, int w, int reach, bool any) {
    Bytes row(x.size()), out(x.size());
    auto worse = [&](uint8_t a, uint8_t b) { return any ? std::max(a, b) : std::min(a, b); };
    for (int r = 0; r < h; r++)
        for (int c = 0; c < w; c++) {
            uint8_t v = x[r * w + c];
            for (int k = std::max(0, c - reach); k <= std::min(w - 1, c + reach); k++) v = worse(v, x[r * w + k]);
            row[r * w + c] = v;
        }
    for (int r = 0; r < h; r++)
        for (int k = std::max(0, r - reach); k <= std::min(h - 1, r + reach); k++)
            for (int c = 0; c < w; c++) {
                const uint8_t v = row[k * w + c];
                out[r * w + c] = k == std::max(0, r - reach) ? v : worse(out[r * w + c], v);
            }
    return out;
}

// Mean and covariance of colours on one side of the edge.
struct Side {
    double n = 0, sum[3] = {}, square[3][3] = {};
    void take(const float* c) {
        n++;
        for (int i = 0; i < 3; i++) {
            sum[i] += c[i];
            for (int j = 0; j < 3; j++) square[i][j] += double(c[i]) * c[j];
        }
    }
    double mean(int i) const { return sum[i] / n; }
    double spread(int i, int j) const { return (square[i][j] - sum[i] * sum[j] / n) / (n - 1); }
};

// The axis on which both sides differ most: the solution of spread * axis = difference of the means.
inline void axis_of(const Side& inside, const Side& outside, const EdgeSettings& s, float* axis) {
    const float luma[3] = {0.299f, 0.587f, 0.114f};
    std::copy(luma, luma + 3, axis);
    if (std::min(inside.n, outside.n) < s.few) return;
    double m[3][4];
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) m[i][j] = (inside.spread(i, j) + outside.spread(i, j)) / 2 + (i == j ? s.noise : 0);
        m[i][3] = inside.mean(i) - outside.mean(i);
    }
    for (int i = 0; i < 3; i++)  // positive definite: it needs no pivots
        for (int r = 0; r < 3; r++) {
            const double factor = r == i ? 0 : m[r][i] / m[i][i];
            for (int j = i; j < 4 && r != i; j++) m[r][j] -= factor * m[i][j];
        }
    for (int i = 0; i < 3; i++) axis[i] = float(m[i][3] / m[i][i]);
}

struct EdgeCells {
    const int h, w;
    Bytes edge, near;
    std::vector<float> level, logit;  // of each cell near an edge: its colour on the axis in units of alike; clipped
    float low = INFINITY, top = -INFINITY;  // of the levels

    // The parts of a cell on the axis, sixteen numbers.
    static void parts_of(const uint8_t* parts, int w, int r, int c, const float* axis, float* out) {
        for (int y = 0; y < 4; y++) {
            const uint8_t* p = parts + (long(4 * r + y) * 4 * w + 4 * c) * 3;
            for (int x = 0; x < 4; x++, p += 3) out[4 * y + x] = p[0] * axis[0] + p[1] * axis[1] + p[2] * axis[2];
        }
    }

    // The variance of the parts of a cell, on the axis.
    double variance_of(const uint8_t* parts, int r, int c, const float* axis) const {
        float levels[LANES], square = 0;
        parts_of(parts, w, r, c, axis, levels);
        const float mean = sum_of(load(levels)) / LANES;
        for (float v : levels) square += (v - mean) * (v - mean);
        return square / LANES;
    }

    // Finds the cells, and the axis in units of alike; false if there is no edge.
    bool find(const float* logits, const uint8_t* parts, const EdgeSettings& s, float* axis) {
        Bytes inside(long(h) * w);
        for (size_t i = 0; i < inside.size(); i++) inside[i] = logits[i] > 0;
        edge = spread(inside, h, w, 1, true);
        const Bytes core = spread(inside, h, w, 1, false);
        bool found = false;
        for (size_t i = 0; i < edge.size(); i++) found |= edge[i] = edge[i] != core[i];
        if (!found) return false;
        near = spread(edge, h, w, 2, true);
        level.assign(near.size(), 0), logit.assign(near.size(), 0);
        Side sides[2];
        std::vector<float> colors;
        for (int r = 0; r < h; r++)
            for (int c = 0; c < w; c++)
                if (near[r * w + c]) {
                    int sum[3] = {};
                    for (int y = 0; y < 4; y++) {
                        const uint8_t* p = parts + (long(4 * r + y) * 4 * w + 4 * c) * 3;
                        for (int x = 0; x < 12; x++) sum[x % 3] += p[x];
                    }
                    for (int i = 0; i < 3; i++) colors.push_back(sum[i] / 16.f);
                    sides[inside[r * w + c]].take(&colors[colors.size() - 3]);
                }
        axis_of(sides[1], sides[0], s, axis);
        double noise = 0;
        int plain = 0;
        const float* color = colors.data();
        for (int i = 0; i < h * w; i++)
            if (near[i]) {
                if (!edge[i]) noise += variance_of(parts, i / w, i % w, axis), plain++;
                level[i] = color[0] * axis[0] + color[1] * axis[1] + color[2] * axis[2], color += 3;
                logit[i] = std::max(-s.clip, std::min(s.clip, logits[i]));
                low = std::min(low, level[i]), top = std::max(top, level[i]);
            }
        const float range = s.alike * (top - low);
        const float alike = std::max(std::sqrt(range * range + float(plain ? noise / plain : 0)), 1e-6f);
        for (float& v : level) v /= alike;
        low /= alike, top /= alike;
        for (int i = 0; i < 3; i++) axis[i] /= alike;
        return true;
    }

    // The new logits of one cell's parts, from their bilinear ones.
    F moved(int r, int c, const EdgeSettings& s, const float* levels, F bilinear, F all) const {
        const F own = least(most(load(levels), set(low)), set(top));
        F sums = set(0.f), weights = sums, smooth = sums;
        for (int t = 0; t < TAPS; t++) {
            const int y = std::min(h - 1, std::max(0, r + t / 5 - 2)), x = std::min(w - 1, std::max(0, c + t % 5 - 2));
            const F by_distance = load(s.weights + t * LANES), v = set(logit[y * w + x]);
            const F away = sub(own, set(level[y * w + x]));
            const F weight = mul(by_distance, add(exp2_of(mul(mul(away, away), set(-0.72134752f))), set(s.any)));
            sums = fma(weight, v, sums), weights = add(weights, weight), smooth = fma(by_distance, v, smooth);
        }
        return add(div(sums, weights), mul(set(s.back), sub(bilinear, div(smooth, all))));
    }
};

inline void refine_edges(const float* logits, int h, int w, const uint8_t* parts, const EdgeSettings& s, float* out) {
    EdgeCells cells{h, w};
    float axis[3], levels[LANES], held[LANES];
    if (!cells.find(logits, parts, s, axis)) return;
    F all = set(0.f);
    for (int t = 0; t < TAPS; t++) all = add(all, load(s.weights + t * LANES));
    for (int r = 0; r < h; r++)
        for (int c = 0; c < w; c++) {
            if (!cells.edge[r * w + c]) continue;
            float* at = out + long(4 * r) * 4 * w + 4 * c;
            for (int y = 0; y < 4; y++) std::copy(at + long(y) * 4 * w, at + long(y) * 4 * w + 4, held + 4 * y);
            const F bilinear = load(held), doubt = sub(set(s.sure), absolute(bilinear));
            if (most_of(doubt) <= 0) continue;
            EdgeCells::parts_of(parts, w, r, c, axis, levels);
            store(held, positive(doubt, cells.moved(r, c, s, levels, bilinear, all), bilinear));
            for (int y = 0; y < 4; y++) std::copy(held + 4 * y, held + 4 * y + 4, at + long(y) * 4 * w);
        }
}

}  // namespace
