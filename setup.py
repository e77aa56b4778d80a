"""Packaging of rtseg. The versions that are tested together are pinned in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'^__version__ = "(.+)"', (here / "rtseg/__init__.py").read_text("utf-8"), re.MULTILINE)

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
    package_data={
        "rtseg": ["py.typed", "weights/*.safetensors", "weights/*.md", "engine/cuda/*.cu", "engine/cpu/avx512/*"]
    },
    entry_points={"console_scripts": ["rtseg = rtseg.cli:main"]},
    install_requires=[
        "av>=14",
        "msgpack>=1.0.8",
        "numpy>=2",
        "opencv-python>=4.10",
        "pillow>=10",
        "prometheus-client>=0.20",
        "pycocotools>=2.0.8",
        "pyzmq>=26",
        "rich>=13.7",
        "safetensors>=0.5",
        "torch>=2.6",
    ],
    extras_require={
        "tensorrt": ["tensorrt>=10.1", "pycuda>=2024.1", "onnx>=1.17", "onnxscript>=0.3"],
        "bench": ["matplotlib>=3.9"],
        "eval": ["matplotlib>=3.9", "nibabel>=5", "scipy>=1.13"],
        "dev": [
            "hypothesis>=6.100",
            "matplotlib>=3.9",
            "monai>=1.4",
            "mypy>=1.15",
            "nibabel>=5",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "onnxscript>=0.3",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "scikit-image>=0.24",
            "scipy>=1.13",
            "transformers>=5",
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
