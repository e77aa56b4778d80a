"""Every call of TensorRT in the package is one that TensorRT 11.4 has: read out of the source, since it cannot be run.

`tensorrt_calls.txt` holds what is called, in the words of the API list that it was read from. The types of values are
followed from where they are made (`trt.Builder(...)`, what its methods return) and from annotations, so that a method
is looked up in the class that it is called on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CALLS = Path(__file__).with_name("tensorrt_calls.txt")
FULL = ROOT.parent / "shared" / "facts" / "tensorrt-11.4-python-api.txt"
MODULE = "module"
OTHERS = (torch.Tensor, Path, dict, list, str, bytes)  # whose methods may have names that TensorRT uses too


class Api:
    """Classes and enums of an API list, with the type that each method returns ("" where it is none of them)."""

    def __init__(self, text: str) -> None:
        self.members: dict[str, dict[str, str]] = {}
        for line in text.splitlines():
            if match := re.match(r"enum (\w+): (.+)", line):
                self.members[match[1]] = dict.fromkeys(match[2].split(", "), "")
            elif match := re.match(r"class (\w+)", line):
                current = self.members.setdefault(match[1], {})
            elif match := re.match(r"  \.?(\w+)(.*)", line):
                current[match[1]] = (re.findall(r"-> (\w+)", match[2]) or [""])[0]

    @property
    def names(self) -> set[str]:
        return {f"{owner}.{member}" for owner, members in self.members.items() for member in members}


class Calls(ast.NodeVisitor):
    """What a source calls of TensorRT (`used`), and what of that is not in the API (`faults`)."""

    def __init__(self, api: Api, source: str) -> None:
        self.api, self.used, self.faults = api, set[str](), list[str]()
        self.variables: dict[str, str] = {}
        tree = ast.parse(source)
        self.attributes = {
            n.target.id: t for n in ast.walk(tree)
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name) and (t := self.annotated(n.annotation))
        }  # fmt: skip
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        self.returned = {f.name: t for f in functions if (t := self.annotated(f.returns))}
        self.returned["bindings"] = MODULE
        self.visit(tree)

    def annotated(self, annotation: ast.expr | None) -> str:
        """The class behind `trt.Class`."""
        if isinstance(annotation, ast.Attribute) and isinstance(annotation.value, ast.Name):
            return annotation.attr if annotation.value.id == "trt" else ""
        return ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.variables = self.variables, dict(self.variables)
        self.variables |= {a.arg: t for a in node.args.args if (t := self.annotated(a.annotation))}
        for statement in node.body:
            self.visit(statement)
        self.variables = outer

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    self.variables[name.id] = self.type_of(value)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.type_of(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.type_of(node)
        self.generic_visit(node)

    def type_of(self, node: ast.expr) -> str:
        """What a value of TensorRT's is: `module`, a class's name for one of its objects, "Class()" for itself."""
        if isinstance(node, ast.Name):
            return MODULE if node.id in ("trt", "tensorrt") else self.variables.get(node.id, "")
        if isinstance(node, ast.Call):
            called = self.type_of(node.func)
            if called.endswith("()"):
                self.note(called[:-2], "__init__")
                return called[:-2]
            if isinstance(node.func, ast.Name):
                return self.returned.get(node.func.id, "")
            return called.removeprefix("-> ")
        return self.type_of_attribute(node) if isinstance(node, ast.Attribute) else ""

    def type_of_attribute(self, node: ast.Attribute) -> str:
        if isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in self.attributes:
            return self.attributes[node.attr]
        owner = self.type_of(node.value).removesuffix("()")
        if owner == MODULE:
            if node.attr not in self.api.members and node.attr != "__version__":
                self.faults.append(f"tensorrt.{node.attr}")
            return f"{node.attr}()" if node.attr in self.api.members else ""
        if owner in self.api.members:
            return self.note(owner, node.attr)
        if self.is_known_method(node.attr) and not any(hasattr(other, node.attr) for other in OTHERS):
            self.faults.append(f"{ast.unparse(node)}: of what class?")
        return ""

    def is_known_method(self, name: str) -> bool:
        return not name.startswith("__") and any(name in members for members in self.api.members.values())

    def note(self, owner: str, member: str) -> str:
        self.used.add(f"{owner}.{member}")
        if member not in self.api.members[owner]:
            self.faults.append(f"{owner}.{member}")
        returned = self.api.members[owner].get(member, "")
        return f"-> {returned}" if returned in self.api.members else ""


def imports_tensorrt(source: str) -> bool:
    imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import)]
    return any(alias.name.split(".")[0] == "tensorrt" for n in imported for alias in n.names)


def sources() -> Iterator[Path]:
    """Files of the package that speak to TensorRT: those that import it, and those that get it from there."""
    for path in sorted(ROOT.glob("rtseg/**/*.py")):
        if imports_tensorrt(path.read_text()) or "bindings" in path.read_text():
            yield path


def test_only_two_files_import_it() -> None:
    """And plans.py does for its types alone."""
    assert [p.name for p in sources() if imports_tensorrt(p.read_text())] == ["library.py", "plans.py"]


def test_every_call_is_listed_and_every_listed_one_is_made() -> None:
    api, used = Api(CALLS.read_text()), set[str]()
    for path in sources():
        calls = Calls(api, path.read_text())
        assert calls.faults == [], path
        used |= calls.used
    assert used == api.names
    assert len(used) > 40  # the source was understood


@pytest.mark.skipif(not FULL.is_file(), reason="the API list of TensorRT 11.4 is not beside this clone")
def test_the_list_is_that_of_tensorrt() -> None:
    ours, theirs = CALLS.read_text(), FULL.read_text()
    assert Api(ours).names <= Api(theirs).names
    listed = set(theirs.splitlines())
    assert [line for line in ours.splitlines() if line.startswith("  ") and line not in listed] == []
    full = Api(theirs)
    for path in sources():
        assert Calls(full, path.read_text()).faults == [], path


@pytest.mark.parametrize(
    "source",
    [
        "trt = bindings()\nbuilder = trt.Builder(log)\nbuilder.create_builder_konfig()",
        "trt = bindings()\nconfig = trt.Builder(log).create_builder_config()\nconfig.execute_async_v3(1)",
        "trt.BuilderFlag.FP16",
        "trt.Calibrator",
        "def f(context: trt.IExecutionContext):\n    context.execute_async_v2(1)",
        "class A:\n    _engine: trt.ICudaEngine\n    def f(self):\n        self._engine.max_batch_size",
        "def f(unknown):\n    unknown.set_tensor_address('x', 1)",
        "network, parser = trt.Builder(log).create_network(1), 2\nnetwork.num_outputs_",
    ],
)
def test_a_wrong_call_is_seen(source: str) -> None:
    assert len(set(Calls(Api(CALLS.read_text()), source).faults)) == 1
