"""The sources that decide what a runtime computes. They are found by following imports, so that none can be forgotten.

Starting with the runtime's own package, these are all modules of `engine` and `sam2` that another one imports, also
within functions or only for types; and the CUDA and C++ sources that a module names, or that are in a folder without
Python just below it. Comments and docstrings do not count: Python sources are compared by their syntax trees.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..base.files import file_sha256

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("engine", "sam2")
FOREIGN = (".cu", ".cpp", ".h")
CHOOSES = ("engine/recipe.py", "engine/runtimes.py")  # they choose runtime and device, not what is computed there


@cache
def sources_hash(package: Path = PACKAGE) -> str:
    """The SHA-256 over all files that could be such sources. While it is the same, single files are not compared."""
    digest = hashlib.sha256()
    for path in sorted(p for name in PACKAGES for p in (package / name).rglob("*") if p.suffix in (".py", *FOREIGN)):
        digest.update(f"{path.relative_to(package)} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


@cache
def sources_of(family: str, package: Path = PACKAGE) -> dict[str, str]:
    """The digest of each source that a runtime depends on, by its path in the package."""
    found: dict[Path, str] = {}
    waiting = [package / "engine" / family / "__init__.py"]
    while waiting:
        path = waiting.pop()
        if path in found or str(path.relative_to(package)) in CHOOSES:
            continue
        text = path.read_bytes()
        try:
            tree = ast.parse(text)
        except SyntaxError:  # someone is editing it
            found[path] = hashlib.sha256(text).hexdigest()
            continue
        found[path] = hashlib.sha256(ast.dump(_bare(tree)).encode()).hexdigest()
        found |= {source: file_sha256(source) for source in _foreign(path, tree)}
        waiting += _imported(path, tree, package)
    return {str(path.relative_to(package)): found[path] for path in sorted(found)}


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without string statements, which docstrings are."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not _is_text(s)]  # type: ignore[attr-defined]
    return tree


def _is_text(statement: ast.AST) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _foreign(path: Path, tree: ast.Module) -> Iterator[Path]:
    """The CUDA and C++ sources of a module: those in its folder that it names, and those of folders without Python."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for source in (p for suffix in FOREIGN for p in path.parent.glob(f"*{suffix}")):
        if source.name in texts:
            yield source
    for source in (p for suffix in FOREIGN for p in path.parent.glob(f"*/*{suffix}")):
        if not any(source.parent.glob("*.py")):
            yield source


def _imported(path: Path, tree: ast.Module, package: Path) -> Iterator[Path]:
    """The modules of `PACKAGES` that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level:
                base = path.parents[node.level - 1]
                yield from _modules(base.joinpath(*(node.module or "").split(".")), names, package)
            elif node.module and node.module.partition(".")[0] == package.name:
                yield from _modules(package.joinpath(*node.module.split(".")[1:]), names, package)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top, *rest = alias.name.split(".")
                if top == package.name:
                    yield from _modules(package.joinpath(*rest), [], package)


def _modules(at: Path, names: list[str], package: Path) -> Iterator[Path]:
    """The files that `from AT import NAMES` reads: modules of a package, else the file that defines the names."""
    if at == package or not at.is_relative_to(package) or at.relative_to(package).parts[0] not in PACKAGES:
        # `from .. import sam2` names a package; other modules of rtseg do not affect what is computed.
        yield from (at / name / "__init__.py" for name in names if at == package and name in PACKAGES)
        return
    if at.with_suffix(".py").is_file():
        yield at.with_suffix(".py")
        return
    for name in names or [""]:
        inner = at / name
        if name and inner.with_suffix(".py").is_file():
            yield inner.with_suffix(".py")
        elif name and (inner / "__init__.py").is_file():
            yield inner / "__init__.py"
        elif (at / "__init__.py").is_file():
            yield at / "__init__.py"
