"""Packaging of rtseg. The versions that are tested together are pinned in constraints.txt."""

import platform
import re
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

here = Path(__file__).parent
version = re.search(r'^__version__ = "(.+)"', (here / "rtseg/__init__.py").read_text("utf-8"), re.MULTILINE)

# What a feed with `runtime = "onnx"` does without; docs/architecture.md says why it is not the other way round.
TORCH = ["onnx>=1.17", "safetensors>=0.5", "torch>=2.6"]
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
        for isa, ((avx512, bf16, vnni), flags) in ISAS.items():
            macros = [("RT_ISA", isa), ("RT_AVX512", avx512), ("RT_BF16", bf16), ("RT_VNNI", vnni)]
            wanted = [*FLAGS, "-mavx2", "-mfma", "-mbmi2", *flags]
            folder = f"{self.build_temp}/{isa}"
            objects += self.compiler.compile(ext.sources[2:], folder, macros, extra_postargs=wanted)
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, target, extra_postargs=["-pthread"], target_lang="c++")


def kernels() -> list[Extension]:
    """The extension module, where this kind of machine can have it."""
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform == "win32":
        return []
    sources = [f"{SIMD}/{name}.cpp" for name in ("module", "pool", "kernels")]
    headers = [f"{SIMD}/{path.name}" for path in sorted((here / SIMD).glob("*.h"))]
    return [Extension("rtseg.engine.cpu._kernels", sources, depends=headers, optional=True)]


setup(
    name="rtseg",
    version=version[1],
    description="SAM 2 masks on live surgical video: Efficient Frame Pruning memory, overlays over ZeroMQ",
    long_description=(here / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["rtseg", "rtseg.*"]),
    ext_modules=kernels(),
    cmdclass={"build_ext": BuildKernels},
    package_data={
        "rtseg": [
            "py.typed",
            "live/demo.mp4",
            "sam2/shipped/*.safetensors",
            "sam2/shipped/*.md",
            "sam2/shipped/onnx/*/*",
            "engine/picture/*.cu",
            "engine/cpu/simd/*",
        ]
    },
    entry_points={"console_scripts": ["rtseg = rtseg.cli:main"]},
    install_requires=[
        "av>=14.1",
        "msgpack>=1.0.8",
        "msgspec>=0.19",
        "numpy>=2",
        "onnxruntime>=1.20",
        "opencv-python>=4.10",
        "pillow>=10",
        "prometheus-client>=0.20",
        "psutil>=6",
        "pycocotools>=2.0.8",
        "pyzmq>=26",
        "rich>=13.7",
    ],
    extras_require={
        "torch": TORCH,
        "tensorrt": [*TORCH, "tensorrt>=10.1", "onnxscript>=0.3"],
        # No wheels: nvcc and a C++ compiler build it. Only for the frame kernels where CUDA's NVRTC is not found.
        "pycuda": ["pycuda>=2024.1"],
        "bench": ["matplotlib>=3.9"],
        "eval": ["matplotlib>=3.9", "nibabel>=5", "scipy>=1.13"],
        "dev": [
            *TORCH,
            "hypothesis>=6.100",
            "matplotlib>=3.9",
            "mkdocstrings-python>=2",
            "monai>=1.4",
            "mypy>=1.15",
            "nibabel>=5",
            "onnxscript>=0.3",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "scikit-image>=0.24",
            "scipy>=1.13",
            "supervision>=0.27",
            "transformers>=5",
            "types-psutil>=6",
            "zensical>=0.0.73",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
