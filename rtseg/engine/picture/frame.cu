// Pixels before and after the network, one kernel each:
//   nv12_to_picture   what a hardware decoder gives -> RGB bytes, as rtseg/grab/decode/color.py makes them
//   picture_to_input  RGB or BGR bytes -> resized, normalised planes
//   cover             low-resolution logits of each object -> one bit of each object at every pixel of the picture
//   draw              those bits -> tints and outlines on the picture, as rtseg/publish/overlay.py draws them
//
// Results are OpenCV's (INTER_AREA where both sides shrink, else INTER_LINEAR) and swscale's, to one grey level.
//
// The arithmetic of a pixel stands in functions for host and device, and the kernels use of CUDA only the built-in
// indices: so no header is needed where this file is compiled (NVRTC has none), and the tests also compile it as plain
// C++ and run it on a CPU.

#ifdef __CUDACC__
#define BOTH __host__ __device__ __forceinline__
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum Order { RGB = 0, BGR = 1 };
enum Type { FP32 = 0, FP16 = 1, BF16 = 2 };

struct Rgb { float r, g, b; };

BOTH u32 bits_of(float x) { union { float f; u32 u; } both; both.f = x; return both.u; }
BOTH float float_of(u32 x) { union { float f; u32 u; } both; both.u = x; return both.f; }

// Round to nearest, ties to even, for finite numbers; written out so that host and device agree, and no header is needed.
BOTH u16 to_bf16(float x) {
    u32 u = bits_of(x);
    return (u16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

BOTH u16 to_fp16(float x) {
    u32 u = bits_of(x), sign = (u >> 16) & 0x8000u, size = u & 0x7fffffffu;
    if (size >= 0x477ff000u) return (u16)(sign | 0x7c00u);  // rounds to more than 65504
    if (size < 0x38800000u)  // subnormal: beside 0.5 the last bit of fp32 is worth as much as that of fp16
        return (u16)(sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000u));
    return (u16)(sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13));
}

BOTH void put(void *plane, int type, long at, float x) {
    if (type == FP32) ((float *)plane)[at] = x;
    else ((u16 *)plane)[at] = type == FP16 ? to_fp16(x) : to_bf16(x);
}

BOTH float at_most(float x, float most) { return x < most ? x : most; }
BOTH float at_least(float x, float least) { return x > least ? x : least; }
BOTH float grey(float x) { return at_least(at_most(rintf(x), 255.f), 0.f); }  // a whole level, as OpenCV answers

// A picture of packed bytes.

struct Packed {
    const u8 *bytes;
    long pitch;  // bytes from row to row
    int order;

    BOTH Rgb at(int x, int y) const {
        const u8 *p = bytes + y * pitch + 3 * x;
        Rgb found = {(float)p[0], (float)p[1], (float)p[2]};
        if (order == BGR) { float r = found.b; found.b = found.r; found.r = r; }
        return found;
    }
};

// A picture of a hardware decoder.

struct Nv12 {
    const u8 *luma, *chroma;  // [H, W], and [H / 2, W / 2] pairs of U and V
    long luma_pitch, chroma_pitch;
    float kr, kb;  // weights of red and blue in luma: 0.299, 0.114 (BT.601) or 0.2126, 0.0722 (BT.709)
    float site_x, site_y;  // where chroma lies: that of pixel (x, y) is at ((x + site_x) / 2, (y + site_y) / 2)
    int full;      // range 0..255, else luma 16..235 and chroma 16..240

    // Chroma lies somewhere between its four pixels, and is interpolated, as swscale does it.
    BOTH float tint(int x, int y, int which, int height, int width) const {
        float across = at_least(at_most(0.5f * (x + site_x), width / 2 - 1.f), 0.f);
        float down = at_least(at_most(0.5f * (y + site_y), height / 2 - 1.f), 0.f);
        int left = (int)across, top = (int)down;
        int right = left + 1 < width / 2 ? left + 1 : left, bottom = top + 1 < height / 2 ? top + 1 : top;
        const u8 *upper = chroma + top * chroma_pitch + which, *lower = chroma + bottom * chroma_pitch + which;
        across -= left;
        down -= top;
        float above = upper[2 * left] * (1.f - across) + upper[2 * right] * across;
        float below = lower[2 * left] * (1.f - across) + lower[2 * right] * across;
        return above * (1.f - down) + below * down - 128.f;
    }

    BOTH Rgb at(int x, int y, int height, int width) const {
        float light = luma[y * luma_pitch + x], kg = 1.f - kr - kb;
        float u = tint(x, y, 0, height, width), v = tint(x, y, 1, height, width);
        if (!full) {
            light = (light - 16.f) * (255.f / 219.f);
            u *= 255.f / 224.f;
            v *= 255.f / 224.f;
        }
        float red = 2.f * (1.f - kr) * v, blue = 2.f * (1.f - kb) * u;
        Rgb found = {grey(light + red), grey(light - (kb * blue + kr * red) / kg), grey(light + blue)};
        return found;
    }
};

// What a target pixel takes of a source axis: pixels first..last, with a weight of each.

struct Span {
    int first, last;
    float from, to;  // its ends (area) or its centre (linear), in pixels from `first`
    float share;     // 1 / its length (area); 0: linear

    BOTH float weight(int at) const {
        float left = (float)(at - first);
        if (share > 0.f) return (at_most(to, left + 1.f) - at_least(from, left)) * share;
        return at == first ? 1.f - from : from;
    }
};

// In whole numbers as far as they go: a border that falls on a pixel must not take a sliver of the next one, and
// doubles are slow on most GPUs.
BOTH Span span_of(int target, int size, int source, int area) {
    Span s;
    if (area) {
        int from = target * source, to = from + source;
        s.first = from / size;
        s.last = (to + size - 1) / size - 1;
        s.from = (float)(from - s.first * size) / size;
        s.to = (float)(to - s.first * size) / size;
        s.share = (float)size / source;
    } else {
        int centre = (2 * target + 1) * source - size, most = 2 * size * (source - 1);  // times 2 * size
        centre = centre < 0 ? 0 : centre > most ? most : centre;
        s.first = centre / (2 * size);
        s.last = s.first + 1 < source ? s.first + 1 : s.first;
        s.from = s.to = (float)(centre - s.first * 2 * size) / (2 * size);
        s.share = 0.f;
    }
    return s;
}

BOTH Rgb resized(const Packed &source, const Span &across, const Span &down) {
    Rgb sum = {0.f, 0.f, 0.f};
    for (int y = down.first; y <= down.last; ++y) {
        Rgb row = {0.f, 0.f, 0.f};
        for (int x = across.first; x <= across.last; ++x) {
            Rgb p = source.at(x, y);
            float w = across.weight(x);
            row.r += w * p.r; row.g += w * p.g; row.b += w * p.b;
        }
        float w = down.weight(y);
        sum.r += w * row.r; sum.g += w * row.g; sum.b += w * row.b;
    }
    Rgb whole = {grey(sum.r), grey(sum.g), grey(sum.b)};
    return whole;
}

// ImageNet's mean and deviation, as rtseg/sam2/network.py has them.
BOTH void input_pixel(const Packed &source, int height, int width, void *planes, int type, int size, int x, int y) {
    int area = height >= size && width >= size;
    Rgb p = resized(source, span_of(x, size, width, area), span_of(y, size, height, area));
    long plane = (long)size * size, at = (long)y * size + x;
    put(planes, type, at, p.r * (1.f / (255.f * 0.229f)) - 0.485f / 0.229f);
    put(planes, type, at + plane, p.g * (1.f / (255.f * 0.224f)) - 0.456f / 0.224f);
    put(planes, type, at + 2 * plane, p.b * (1.f / (255.f * 0.225f)) - 0.406f / 0.225f);
}

// One bit of each object that covers a pixel: its logits, bilinear between pixel centres, are above 0 there.
BOTH u32 covers(const float *logits, int objects, int rows, int columns, const Span &across, const Span &down) {
    u32 bits = 0;
    for (int i = 0; i < objects; ++i, logits += (long)rows * columns) {
        const float *upper = logits + (long)down.first * columns, *lower = logits + (long)down.last * columns;
        float above = upper[across.first] * (1.f - across.from) + upper[across.last] * across.from;
        float below = lower[across.first] * (1.f - across.from) + lower[across.last] * across.from;
        if (above * (1.f - down.from) + below * down.from > 0.f) bits |= 1u << i;
    }
    return bits;
}

// Objects that cover the whole square of a radius around a pixel; beyond the picture there is none. `known` are those
// that cover the square of radius - 1, so that only the ring has to be looked at.
BOTH u32 around(const u32 *bits, u32 known, int x, int y, int radius, int height, int width) {
    if (x < radius || y < radius || x + radius >= width || y + radius >= height) return 0;
    for (int d = -radius; d <= radius && known; ++d) {
        known &= bits[(long)(y - radius) * width + x + d] & bits[(long)(y + radius) * width + x + d];
        known &= bits[(long)(y + d) * width + x - radius] & bits[(long)(y + d) * width + x + radius];
    }
    return known;
}

// `tables` [objects][2][256][3]: what a value becomes under an object's tint, and under its line; `dark` [256]: under
// the line inside that one. Lines are `outer` and `inner` pixels wide.
BOTH void draw_pixel(
    u8 *pixel, const u32 *bits, int objects, const u8 *tables, const u8 *dark, int tint, int outer, int inner,
    int x, int y, int height, int width
) {
    u32 own = bits[(long)y * width + x], deep = own, core;
    if (!own) return;
    int radius = 1;
    for (; radius <= outer && deep; ++radius) deep = around(bits, deep, x, y, radius, height, width);
    core = deep;
    for (; radius <= outer + inner && deep; ++radius) deep = around(bits, deep, x, y, radius, height, width);
    u8 c[3] = {pixel[0], pixel[1], pixel[2]};
    for (int i = 0; tint && i < objects; ++i)
        if (own >> i & 1u)
            for (int k = 0; k < 3; ++k) c[k] = tables[((2 * i) * 256 + c[k]) * 3 + k];
    for (int i = 0; i < objects; ++i) {
        if ((own & ~core) >> i & 1u)
            for (int k = 0; k < 3; ++k) c[k] = tables[((2 * i + 1) * 256 + c[k]) * 3 + k];
        else if ((core & ~deep) >> i & 1u)
            for (int k = 0; k < 3; ++k) c[k] = dark[c[k]];
    }
    for (int k = 0; k < 3; ++k) pixel[k] = c[k];
}

#define AT_PIXEL(columns, rows)                                                     \
    const int x = blockIdx.x * blockDim.x + threadIdx.x;                            \
    const int y = blockIdx.y * blockDim.y + threadIdx.y;                            \
    if (x >= (columns) || y >= (rows)) return

extern "C" __global__ void picture_to_input(
    const u8 *__restrict__ bytes, long pitch, int order, int height, int width, void *planes, int type, int size
) {
    AT_PIXEL(size, size);
    Packed source = {bytes, pitch, order};
    input_pixel(source, height, width, planes, type, size, x, y);
}

extern "C" __global__ void nv12_to_picture(
    const u8 *__restrict__ luma, const u8 *__restrict__ chroma, long luma_pitch, long chroma_pitch, float kr, float kb,
    float site_x, float site_y, int full, int height, int width, u8 *picture
) {
    AT_PIXEL(width, height);
    Nv12 source = {luma, chroma, luma_pitch, chroma_pitch, kr, kb, site_x, site_y, full};
    Rgb p = source.at(x, y, height, width);
    u8 *pixel = picture + 3 * ((long)y * width + x);
    pixel[0] = (u8)p.r; pixel[1] = (u8)p.g; pixel[2] = (u8)p.b;
}

extern "C" __global__ void cover(
    const float *__restrict__ logits, int objects, int rows, int columns, u32 *bits, int height, int width
) {
    AT_PIXEL(width, height);
    Span across = span_of(x, width, columns, 0), down = span_of(y, height, rows, 0);
    bits[(long)y * width + x] = covers(logits, objects, rows, columns, across, down);
}

extern "C" __global__ void draw(
    u8 *picture, const u32 *__restrict__ bits, int objects, const u8 *__restrict__ tables,
    const u8 *__restrict__ dark, int tint, int outer, int inner, int height, int width
) {
    AT_PIXEL(width, height);
    u8 *pixel = picture + 3 * ((long)y * width + x);
    draw_pixel(pixel, bits, objects, tables, dark, tint, outer, inner, x, y, height, width);
}
