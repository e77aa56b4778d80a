"""The extension module of rtseg. All else about the package is in pyproject.toml."""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

here = Path(__file__).parent
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")
ISAS = {  # the plainest first: of what several objects define alike, the linker keeps the first, which runs anywhere
    "avx2": ((0, 0, 0), ()),
    "avxvnni": ((0, 0, 1), ("-mavxvnni",)),
    "avx512": ((1, 0, 0), AVX512),
    "avx512bf16": ((1, 1, 0), (*AVX512, "-mavx512bf16", "-mavx512vnni")),
}
FLAGS = ("-std=c++17", "-O3", "-g0", "-fno-math-errno", "-Wno-uninitialized", "-Wno-maybe-uninitialized")
SIMD = "rtseg/engine/cpu/simd"


class BuildKernels(build_ext):
    """Compiles the CPU kernels once for each instruction set, into one module; without a compiler, goes on without."""

    def build_extension(self, ext: Extension) -> None:
        objects = self.compiler.compile(ext.sources[:2], self.build_temp, extra_postargs=["-std=c++17", "-O2", "-g0"])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(lambda isa: self._compile(ext.sources[2:], isa), ISAS):
                objects += found
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, target, extra_postargs=["-pthread"], target_lang="c++")

    def _compile(self, sources: list[str], isa: str) -> list[str]:
        (avx512, bf16, vnni), flags = ISAS[isa]
        macros = [("RT_ISA", isa), ("RT_AVX512", avx512), ("RT_BF16", bf16), ("RT_VNNI", vnni)]
        wanted = [*FLAGS, "-mavx2", "-mfma", "-mbmi2", *flags]
        return self.compiler.compile(sources, f"{self.build_temp}/{isa}", macros, extra_postargs=wanted)


def kernels() -> list[Extension]:
    """The extension module, where this kind of machine can have it."""
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform == "win32":
        return []
    sources = [f"{SIMD}/{name}.cpp" for name in ("module", "pool", "kernels")]
    headers = [f"{SIMD}/{path.name}" for path in sorted((here / SIMD).glob("*.h"))]
    return [Extension("rtseg.engine.cpu._kernels", sources, depends=headers, optional=True)]


setup(ext_modules=kernels(), cmdclass={"build_ext": BuildKernels})
