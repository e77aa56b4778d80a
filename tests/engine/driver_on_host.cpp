// The calls of the CUDA driver that rtseg makes, on the CPU: frame.cu as plain C++, launched with the arguments, the
// grid and the block that the driver is given, by the kernels' own types. What the driver would refuse is refused.
#include <cstring>
#include <utility>

#include "cuda_on_host.h"

namespace {

enum { INVALID_VALUE = 1, INVALID_CONTEXT = 201, NOT_FOUND = 500 };

int contexts, launches;  // contexts: how many times the primary one was retained
thread_local int depth;  // of this thread's stack of contexts
void *latest_stream;

template <class... Types, std::size_t... Places>
void call(void (*kernel)(Types...), void **places, std::index_sequence<Places...>) {
    kernel(*(Types *)places[Places]...);
}

template <class... Types> void call(void (*kernel)(Types...), void **places) {
    call(kernel, places, std::index_sequence_for<Types...>());
}

typedef void (*Run)(void **);

template <auto kernel> void run(void **places) { call(kernel, places); }

struct Known { const char *name; Run run; };

const Known known[] = {
    {"nv12_to_picture", run<nv12_to_picture>},
    {"picture_to_input", run<picture_to_input>},
    {"cover", run<cover>},
    {"draw", run<draw>},
};

}  // namespace

extern "C" {

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : 0; }
int cuDeviceGet(int *device, int index) { *device = index; return index ? 101 : 0; }
int cuDevicePrimaryCtxRetain(void **context, int) { *context = &contexts; ++contexts; return 0; }
int cuCtxPushCurrent_v2(void *context) { if (context != &contexts) return INVALID_CONTEXT; ++depth; return 0; }
int cuCtxPopCurrent_v2(void **context) { *context = &contexts; return depth-- ? 0 : INVALID_CONTEXT; }

int cuModuleLoadData(void **module, const void *image) {
    *module = (void *)image;
    return !depth ? INVALID_CONTEXT : std::memcmp(image, "host", 4) ? 200 : 0;
}

int cuModuleGetFunction(void **function, void *, const char *name) {
    for (const Known &each : known)
        if (!std::strcmp(each.name, name)) { *function = (void *)&each; return 0; }
    return NOT_FOUND;
}

int cuGetErrorString(int result, const char **text) {
    *text = result == NOT_FOUND ? "named symbol not found" : "refused";
    return 0;
}

int cuLaunchKernel(
    void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
    void *stream, void **places, void **extra
) {
    if (!depth) return INVALID_CONTEXT;
    if (!gx || !gy || gz != 1 || bx * by * bz > 1024 || !bx || !by || bz != 1 || shared || extra) return INVALID_VALUE;
    latest_stream = stream;
    ++launches;
    blockDim = {(int)bx, (int)by};
    for (blockIdx.y = 0; blockIdx.y < (int)gy; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < (int)gx; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < (int)by; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < (int)bx; ++threadIdx.x) ((const Known *)function)->run(places);
    return 0;
}

int host_launches() { return launches; }
void *host_stream() { return latest_stream; }
int host_depth() { return depth; }
}
