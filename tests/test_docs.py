"""The documents say what is there: links, commands, keys, pictures, and the pages that are in no menu."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from dataclasses import fields
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rtseg

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "bench", "engines", "streams", "rtseg/sam2/shipped")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(text: str) -> list[str]:
    """The command lines of rtseg in a document: indented lines, and those of blocks without a language."""
    lines = re.findall(r"^    (rtseg [^#\n]+)", text, re.MULTILINE)
    lines += [line for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
              for line in re.findall(r"^(rtseg [^#\n]+)", block, re.MULTILINE)]  # fmt: skip
    return [one.strip() for line in lines for one in line.split(";") if one.strip().startswith("rtseg")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not [link for link in missing if "NAME" not in link]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_of_a_document_are_commands(path: Path) -> None:
    from rtseg.cli import make_parser

    for line in commands(path.read_text("utf-8")):
        if "..." not in line and "--help" not in line and line.count("rtseg ") == 1:
            make_parser().parse_args(shlex.split(line)[1:])  # it raises where it is none


def test_a_command_that_is_none_is_noticed() -> None:
    from rtseg.base.errors import RtsegError
    from rtseg.cli import make_parser

    assert commands("    rtseg live a.toml   # x\n    rtseg keys new a; rtseg keys list\n") == [
        "rtseg live a.toml", "rtseg keys new a", "rtseg keys list",
    ]  # fmt: skip
    for line in ("no-such-verb", "live a.toml --no-such-option", "ctl snapshot --out x.png"):
        with pytest.raises(RtsegError):
            make_parser().parse_args(line.split())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_the_code_of_a_document_imports_is_there(path: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_readme_is_short_and_names_the_verbs() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 900
    verbs = {line.split()[1] for line in commands(text)} | set(re.findall(r"`rtseg (\w+)", text))
    assert {"live", "view", "ctl", "segment", "build", "bench", "eval", "train", "doctor"} <= verbs


def test_every_page_is_in_the_menu() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in pages(each)]

    menu = pages(tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"])
    known = script("assemble").places(ROOT)
    assert sorted(menu) == sorted(place for place in known.values() if place.endswith(".md"))


def test_links_are_rewritten_and_scripts_shown() -> None:
    assemble = script("assemble")
    known = {"docs/a.md": "a.md", "bench/R.md": "results.md", "bench/x.jpg": "pictures/x.jpg"}
    text = "[r](../bench/R.md#top) ![x](../bench/x.jpg) [code](../tests/conftest.py) [w](https://x.org)\n    [r](no.md)"
    assert assemble.rewritten(text, "docs/a.md", "a.md", known, ROOT) == (
        "[r](results.md#top) ![x](pictures/x.jpg) code (`tests/conftest.py`) [w](https://x.org)\n    [r](no.md)"
    )
    shown = assemble.rewritten("[c](code/subscribe.mjs)", "docs/a.md", "a.md", known, ROOT)
    assert shown.startswith("```javascript") and shown.endswith("```") and "decodeRle" in shown
    with pytest.raises(SystemExit, match="no-such"):
        assemble.rewritten("[r](no-such.md)", "docs/a.md", "a.md", known, ROOT)


def test_the_architecture_is_the_one_that_tests_hold() -> None:
    drawings = script("drawings")
    for name, drawn in drawings.drawings().items():
        there = (ROOT / "docs" / "drawings" / name).read_text("utf-8")
        assert there == drawn, f"docs/drawings/{name} is old; run: python docs/drawings.py"
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \|((?: `\w+`,?)*) \|$", text, re.MULTILINE)
    told = {package: set(re.findall(r"\w+", below)) for package, below in rows}
    held = {package: below - {"base"} for package, below in drawings.packages().items()}
    assert told == held, "the table of docs/architecture.md differs from tests/test_architecture.py"
    packages = {path.name for path in (ROOT / "rtseg").iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert set(told) == packages | {"cli"}


def test_the_wire_page_names_every_key() -> None:
    from rtseg.publish import wire

    text = (ROOT / "docs" / "wire.md").read_text("utf-8")
    for key in (*wire._KEYS, *wire._OPTIONAL_KEYS, *wire._OBJECT_KEYS):
        assert f"`{key}`" in text, key


def test_pages_name_every_key_that_a_user_writes() -> None:
    from rtseg.engine.recipe import Recipe
    from rtseg.live.profile import StreamFile

    live, engines = ((ROOT / "docs" / f"{page}.md").read_text("utf-8") for page in ("live", "engines"))
    for key in StreamFile.__struct_fields__:
        assert re.search(rf"^\| `{key}\b", live, re.MULTILINE), key
    for field in fields(Recipe):
        assert field.name == "path" or re.search(rf"^\| `{field.name}` \|", engines, re.MULTILINE), field.name


def test_public_docstrings_document_every_argument() -> None:
    from rtseg.data import open_dataset
    from rtseg.evaluate import evaluate
    from rtseg.live.control import Client
    from rtseg.offline import segment

    plain = [rtseg.open_engine, rtseg.open_source, rtseg.Tracker.prompt, rtseg.Masks.on, rtseg.register_policy]
    plain += [segment, open_dataset, evaluate, Client.add]
    made = {rtseg.Tracker: rtseg.Tracker, rtseg.Subscriber: rtseg.Subscriber.__init__, Client: Client.__init__}
    made[rtseg.Prompt] = rtseg.Prompt.__init__
    for thing, where in [*((one, one) for one in plain), *made.items()]:
        text = inspect.getdoc(where) or ""
        for name in inspect.signature(thing).parameters:
            assert name == "self" or re.search(rf"^    {name}: ", text, re.MULTILINE), f"{where.__qualname__}: {name}"
