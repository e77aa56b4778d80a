"""The architecture, read from the source: what imports what, circles of imports, and the sizes of files and functions.

`python -m tests.architecture` prints the packages from the ground up, as text and as a Mermaid diagram.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAZY, TYPING, DIRECT = "lazy", "typing", "direct"  # when an import is executed: at a call; never; with its module
Edge = tuple[str, str, str]  # importing module, imported module, one of the three
Graph = Mapping[str, set[str]]


def sources(package: Path) -> dict[str, str]:
    """The text of each module of a package, by its dotted name; a folder's `__init__` has the name of the folder."""
    found = {}
    for path in sorted(package.glob("**/*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def edges(modules: Mapping[str, str], packages: set[str]) -> set[Edge]:
    """The imports among these modules. `packages` are the names of those that are folders.

    `from .a import b` is an import of module `a.b` where that is a module, else of `a`.
    """
    found = set()
    for name, text in modules.items():
        here = name.split(".") if name in packages else name.split(".")[:-1]
        for target, when in imports(text, here):
            module = target if target in modules else target.rpartition(".")[0]
            if module in modules and module != name:
                found.add((name, module, when))
    return found


def imports(text: str, here: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The absolute names that a file in the package `here` imports, and when each import is executed."""
    for node, when in _statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, when) for alias in node.names)
        else:
            start = here[: len(here) - node.level + 1] if node.level else ()
            stem = [*start, *(node.module.split(".") if node.module else ())]
            yield from ((".".join([*stem, alias.name]), when) for alias in node.names)


def _statements(tree: ast.AST, when: str = DIRECT) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Each import statement below a node, and when it is executed."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, when
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(node, LAZY if when == DIRECT else when)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from _statements(ast.Module([child], []), TYPING)
            for child in node.orelse:
                yield from _statements(ast.Module([child], []), when)
        else:
            yield from _statements(node, when)


def circles(found: set[Edge], *, typing: bool) -> list[list[str]]:
    """The strongly connected components of more than one module, each sorted; Tarjan's algorithm.

    Imports inside functions count. Those under `TYPE_CHECKING` count only with `typing`.
    """
    graph: dict[str, set[str]] = {}
    for source, target, when in found:
        graph.setdefault(source, set())
        graph.setdefault(target, set())
        if typing or when != TYPING:
            graph[source].add(target)
    return sorted(sorted(one) for one in components(graph) if len(one) > 1)


def components(graph: Graph) -> list[list[str]]:
    """The strongly connected components, those that are imported before those that import them."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    done: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            done.append(stack[at:])
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return done


def package_of(module: str) -> str:
    """The package or file directly below `rtseg` that a module belongs to; "__init__" for `rtseg` itself."""
    _, *below = module.split(".")
    return below[0] if below else "__init__"


def packages(found: set[Edge]) -> dict[str, set[str]]:
    """The packages that each package imports, in an order in which each follows all that it imports."""
    graph: dict[str, set[str]] = {}
    for source, target, when in found:
        ends = package_of(source), package_of(target)
        for end in ends:
            graph.setdefault(end, set())
        if ends[0] != ends[1] and when != TYPING:
            graph[ends[0]].add(ends[1])
    return {name: graph[name] for one in components(graph) for name in one}


def long_files(package: Path, limit: int) -> dict[str, int]:
    """Lines of each Python file with more than `limit`, by its path in the package."""
    lines = {path: path.read_text().count("\n") for path in package.glob("**/*.py")}
    return {str(path.relative_to(package)): count for path, count in lines.items() if count > limit}


def long_functions(package: Path, limit: int) -> dict[str, int]:
    """Lines of each function with more than `limit`, from `def` to its end, by "path:name"."""
    found = {}
    for path in package.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > limit:
                    found[f"{path.relative_to(package)}:{node.name}"] = count
    return found


@cache
def package_edges(package: Path = ROOT / "rtseg") -> set[Edge]:
    """The imports inside a package on disk."""
    folders = {".".join(path.parent.relative_to(package.parent).parts) for path in package.glob("**/__init__.py")}
    return edges(sources(package), folders)


def _draw() -> None:
    plan = packages(package_edges())
    for name, below in plan.items():
        print(f"{name:12} imports {', '.join(sorted(below)) or 'nothing of the package'}")
    print("\n```mermaid\nflowchart BT")
    for name, below in plan.items():
        # An arrow that a chain of others implies is left out: the diagram shows the shortest plan.
        implied = set().union(*(_reach(plan, other) for other in below)) if below else set()
        for other in sorted(below - implied):
            print(f"    {other} --> {name}")
    print("```")


def _reach(graph: Graph, start: str) -> set[str]:
    """All that can be reached from a package, without itself."""
    found: set[str] = set()
    waiting = set(graph[start])
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= graph[name] - found
    return found - {start}


if __name__ == "__main__":
    _draw()
