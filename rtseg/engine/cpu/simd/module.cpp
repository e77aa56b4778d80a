// The extension module: nothing for Python to call but what `rtseg.engine.cpu.kernels` finds by ctypes. It is a module
// so that pip builds it, and so that a wheel brings it.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <cpuid.h>
#include <immintrin.h>

namespace {

bool bit(unsigned word, int at) { return word >> at & 1; }

#pragma GCC push_options
#pragma GCC target("xsave")
unsigned long long os_saves() { return _xgetbv(0); }
#pragma GCC pop_options

}  // namespace

extern "C" {

// The instruction sets that this CPU has and the system saves: 1 avx2, 2 avxvnni, 4 avx512, 8 avx512bf16.
__attribute__((visibility("default"))) int rt_isas() {
    unsigned a, b, c, d, b7, c7, d7, a1 = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) return 0;
    const bool fma = bit(c, 12) && bit(c, 28);
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    __get_cpuid_count(7, 1, &a1, &b, &c, &d);
    const auto saved = os_saves();
    const bool ymm = (saved & 6) == 6, zmm = (saved & 0xe6) == 0xe6;
    const bool avx2 = ymm && fma && bit(b7, 5) && bit(b7, 8);
    const bool avx512 = avx2 && zmm && bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31);
    return avx2 | (avx2 && bit(a1, 4)) << 1 | avx512 << 2 | (avx512 && bit(c7, 11) && bit(a1, 5)) << 3;
}

PyMODINIT_FUNC PyInit__kernels() {
    static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", nullptr, -1, nullptr};
    return PyModule_Create(&definition);
}
}
