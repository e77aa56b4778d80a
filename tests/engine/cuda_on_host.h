// The words of CUDA that frame.cu uses, for a plain C++ compiler.
#include <math.h>

#define BOTH inline
#define __global__
#define __restrict__

struct Index { int x, y; };
static thread_local Index threadIdx, blockIdx, blockDim;

#include "frame.cu"
