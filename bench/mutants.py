"""Faults put in by hand, and whether a test finds each: `python -m bench.mutants`.

mutants.toml lists them: a file, the text that is taken out, what stands there instead, and what that is. Each is put
into a copy of the tree, alone, and the tests of its part are run: those of `make test`, then, where none of these
fails, the slow ones too. A list is stale as soon as a text does not stand in its file exactly once; `--check` looks for
that alone, and is part of `make test`. The whole run takes a quarter of an hour. It ends with 1 where fewer than
nine in ten are found.

    python -m bench.mutants                    # all
    python -m bench.mutants --only pinned      # those whose description has the word
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".toml")
LEFT_OUT = (
    ".git",
    ".venv",
    "out",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "shared",
)
TIMEOUT_S = 600  # of a run of tests: several times what the longest takes here
FOUND = 0.9


@dataclass(frozen=True, slots=True)
class Fault:
    """`old`, which stands once in `file`, becomes `new`; `tests` are those of its part."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def source(self, root: Path) -> str:
        """The file with the fault in it; `ValueError` where the list no longer fits."""
        text = (root / self.file).read_text("utf-8")
        if text.count(self.old) != 1:
            raise ValueError(
                f"{LIST.name}: {self.what}: its text stands {text.count(self.old)} times in {self.file}, expected once;"
                " write it anew"
            )
        faulty = text.replace(self.old, self.new)
        if self.file.endswith(".py"):
            compile(faulty, self.file, "exec")  # what does not even load is found by anything
        return faulty


def listed(path: Path = LIST) -> list[Fault]:
    """The faults of the list."""
    data = tomllib.loads(path.read_text("utf-8"))
    return [
        Fault(f["what"], f["file"], f["old"], f["new"], tuple(f.get("tests", ())) or covering(f["file"], data["tests"]))
        for f in data["fault"]
    ]


def covering(file: str, by_start: dict[str, list[str]]) -> tuple[str, ...]:
    """The tests of the longest path that the file's begins with."""
    starts = [start for start in by_start if file.startswith(start)]
    if not starts:
        raise ValueError(f"{LIST.name}: [tests] has nothing for {file}")
    return tuple(by_start[max(starts, key=len)])


def check(faults: Sequence[Fault], root: Path = ROOT) -> list[str]:
    """What is wrong with the list."""
    problems = []
    for fault in faults:
        try:
            fault.source(root)
        except (OSError, ValueError, SyntaxError) as e:
            problems.append(f"{type(e).__name__}: {e}")
        problems += [
            f"{fault.what}: no {test}" for test in fault.tests if not (root / test.partition("::")[0]).exists()
        ]
    return problems


@contextmanager
def copied(fault: Fault | None) -> Iterator[Path]:
    """A copy of the tree with a fault in it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        if fault is not None:
            (tree / fault.file).write_text(fault.source(tree), "utf-8")
        yield tree


def failing(tree: Path, tests: Sequence[str], slow: bool) -> str:
    """The first test that fails in a tree, or ""; `slow` ones alone, or all others."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-rfE", "-p", "no:cacheprovider", "--no-header"]
    command += ["-m", "slow" if slow else "not slow", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end after {TIMEOUT_S} s"
    if ran.returncode in (0, 5):  # 5: there are none of that kind
        return ""
    lines = re.findall(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE)
    return str(lines[0]) if lines else f"pytest ended with {ran.returncode}: {(ran.stdout + ran.stderr)[-300:]}"


def verdict(fault: Fault) -> str:
    """Which test finds the fault, or ""."""
    with copied(fault) as tree:
        return failing(tree, fault.tests, slow=False) or failing(tree, fault.tests, slow=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only see whether the list fits")
    parser.add_argument("--only", default="", metavar="WORD", help="faults whose description has this word")
    parser.add_argument("--jobs", type=int, default=2, help="how many trees at once (default 2)")
    parser.add_argument("--sound", action="store_true", help="take it that the tests pass without a fault")
    asked = parser.parse_args(arguments)
    faults = [fault for fault in listed() if asked.only in fault.what]
    if problems := check(faults):
        print("\n".join(problems))
        return 2
    if asked.check:
        print(f"{len(faults)} faults, all of them where the list says")
        return 0
    if not asked.sound:
        tests = sorted({test for fault in faults for test in fault.tests})
        with copied(None) as tree:
            if already := failing(tree, tests, slow=False) or failing(tree, tests, slow=True):
                print(f"without any fault, {already} fails; mend that first")
                return 2
    with ThreadPoolExecutor(asked.jobs) as pool:
        found = []
        for fault, by in zip(faults, pool.map(verdict, faults), strict=True):
            found.append(bool(by))
            print(
                f"{'found' if by else 'NOT FOUND':10} {fault.what} ({fault.file}){' by ' if by else ''}{by}", flush=True
            )
    print(f"{sum(found)} of {len(found)} found")
    return int(sum(found) < FOUND * len(found))


if __name__ == "__main__":
    sys.exit(main())
