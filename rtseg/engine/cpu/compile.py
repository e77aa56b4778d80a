"""How the kernels of avx512/ are compiled; a CPU with AVX-512 BF16 and VNNI runs them.

A C++ compiler is needed once, at build; `missing` says what a CPU lacks.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ...config import cpu_flags
from ...errors import EngineError

SOURCE = Path(__file__).with_name("avx512") / "kernels.cpp"
LIBRARY = "cpu_kernels.so"
COMPILERS = ("g++", "c++")  # GCC: clang calls an OpenMP library that torch does not bring
WANTED = ("avx512_bf16", "avx512_vnni")
FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-fopenmp", "-fno-math-errno", "-mtune=native", "-mfma", "-mbmi2",
    "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mavx512vnni",
)  # fmt: skip


def missing() -> str | None:
    """Why the kernels cannot run here, or None."""
    absent = [flag for flag in WANTED if flag not in cpu_flags()]
    return f"this CPU has no {' and no '.join(absent)}" if absent else None


def compiler() -> str | None:
    """The C++ compiler that is on the PATH."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def compile_kernels(folder: Path) -> Path:
    """Compile into `folder`; `EngineError` with the compiler's first complaint where that fails."""
    found = compiler()
    if found is None:
        names = " or ".join(COMPILERS)
        raise EngineError(f"no {names} (Debian: apt-get install g++); runtime cpu works without a build, in torch")
    target, part = folder / LIBRARY, folder / "cpu_kernels.o"
    # Linked without OpenMP: its symbols are those of the library that torch has loaded (see `Kernels`).
    for command in (
        [found, *FLAGS, "-c", str(SOURCE), "-o", str(part)],
        [found, "-shared", str(part), "-o", str(target)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
            raise EngineError(
                f"{found} could not compile {SOURCE.name}: {said}; expected a compiler that knows AVX-512 BF16"
            )
    part.unlink()
    return target
