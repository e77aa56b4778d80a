"""A GPU that is the CPU: `frame.cu` compiled as plain C++, behind the calls of the CUDA driver that rtseg makes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from rtseg.engine.picture.frame_kernels import ARGUMENTS, SOURCE, FrameKernels
from rtseg.engine.picture.launch import DriverLauncher

HERE = Path(__file__).parent
IMAGE = b"host"  # what this driver takes for a compiled source


def compiled_driver(folder: Path) -> ctypes.CDLL:
    """The driver as a library, in `folder`; the test is skipped where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on the PATH")
    library = folder / "driver.so"
    flags = ["-O2", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", str(SOURCE.parent)]
    subprocess.run([compiler, *flags, str(HERE / "driver_on_host.cpp"), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def host_kernels(driver: ctypes.CDLL) -> FrameKernels:
    """The frame kernels on CPU tensors, through that driver."""
    return FrameKernels("cpu", DriverLauncher(driver, 0, IMAGE, ARGUMENTS))
