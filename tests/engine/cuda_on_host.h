// The words of CUDA that frame.cu uses, for a plain C++ compiler; and a loop that runs a kernel on every pixel.
#include <math.h>

#define BOTH inline
#define __global__
#define __restrict__

struct Index { int x, y; };
static Index threadIdx, blockIdx, blockDim;

#include "frame.cu"

template <class Kernel, class... Arguments>
static void launch(int columns, int rows, Kernel kernel, Arguments... arguments) {
    blockDim = {16, 16};
    // One block more than is needed each way: a kernel must leave alone what lies beyond.
    for (blockIdx.y = 0; blockIdx.y <= (rows + 15) / 16; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x <= (columns + 15) / 16; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < 16; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < 16; ++threadIdx.x) kernel(arguments...);
}

extern "C" {
void host_picture_to_input(
    const u8 *bytes, long pitch, int order, int height, int width, void *planes, int type, int size
) {
    launch(size, size, picture_to_input, bytes, pitch, order, height, width, planes, type, size);
}
void host_nv12_to_input(
    const u8 *luma, const u8 *chroma, long luma_pitch, long chroma_pitch, float kr, float kb, int full, int height,
    int width, void *planes, int type, int size
) {
    launch(size, size, nv12_to_input, luma, chroma, luma_pitch, chroma_pitch, kr, kb, full, height, width, planes,
           type, size);
}
void host_cover(
    const float *logits, int objects, int rows, int columns, u32 *bits, int height, int width
) {
    launch(width, height, cover, logits, objects, rows, columns, bits, height, width);
}
void host_draw(
    u8 *picture, const u32 *bits, int objects, const u8 *tables, const u8 *dark, int tint, int outer, int inner,
    int height, int width
) {
    launch(width, height, draw, picture, bits, objects, tables, dark, tint, outer, inner, height, width);
}
}
