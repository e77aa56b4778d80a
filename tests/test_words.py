"""Retired words stay retired: docs/glossary.md has the term that took the place of each."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Parts of names: `seat` also forbids `worker_seat` and `SeatPlan`.
RETIRED_PARTS = {
    "bell", "door", "forgone", "gate", "heard", "house", "knock", "likeness", "parcel", "parcels", "said", "seat",
    "taps", "workshop",
}  # fmt: skip
# Whole names.
RETIRED_NAMES = {"MemoryPlan", "Prompts", "Kept", "way_out", "steady_slots", "NEED_LIKENESS", "NEED_RIVALS"}
# In prose, as whole words.
RETIRED_WORDS = {"parcels", "seat", "seats", "way out", "workshop", "the door", "this house"}


def retired(source: str) -> list[str]:
    """The retired names among the identifiers of a module."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            parts = {part.lower() for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", token.string)}
            if parts & RETIRED_PARTS or token.string in RETIRED_NAMES:
                found.append(f"line {token.start[0]}: {token.string}")
    return found


@pytest.mark.parametrize("folder", sorted({path.parent for path in (ROOT / "rtseg").rglob("*.py")}), ids=str)
def test_no_retired_name_in_the_code(folder: Path) -> None:
    found = {path.name: retired(path.read_text("utf-8")) for path in folder.glob("*.py")}
    assert not {name: names for name, names in found.items() if names}


@pytest.mark.parametrize("path", [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=str)
def test_no_retired_word_in_the_documents(path: Path) -> None:
    text = path.read_text("utf-8").lower()
    assert not [word for word in RETIRED_WORDS if re.search(rf"\b{word}\b", text)]


def test_a_retired_name_is_noticed() -> None:
    source = "class SeatPlan:\n    ring_bell = 1\n    # a seat in a comment is prose\n    aggregate = seating = 0\n"
    assert retired(source) == ["line 1: SeatPlan", "line 2: ring_bell"]
    assert retired("from x import Prompts, PromptBatch") == ["line 1: Prompts"]


def test_the_glossary_has_each_term_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    heads = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    terms = [term for head in heads for term in re.findall(r"\*\*(.+?)\*\*", head)]
    assert len(terms) > 100
    assert sorted(terms) == sorted(set(terms))


def test_the_names_of_the_glossary_are_in_the_code() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    named = set(re.findall(r"^\|.*?\(`([A-Z]\w+)`\) \|", text, re.MULTILINE))
    sources = [path.read_text("utf-8") for path in (ROOT / "rtseg").rglob("*.py")]
    classes = {name for source in sources for name in re.findall(r"^class (\w+)", source, re.MULTILINE)}
    assert len(named) > 10 and not named - classes
