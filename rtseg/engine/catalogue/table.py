"""The table of published weights, weights.toml: names, addresses, sizes, hashes, licences, presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from ...base.documents import read_toml
from ...base.errors import WeightsError, did_you_mean
from ...base.schema import ImageSize, Text, convert, mistake

TABLE = Path(__file__).with_name("weights.toml")
NAME = r"\A[a-z0-9][a-z0-9.+-]*\Z"  # it becomes the name of a file
SHA256 = r"\A[0-9a-f]{64}\Z"
ADDRESS = r"\Ahttps://[^\s]+\Z"


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of use. `accept`: whether a user has to accept them by name before the weights are fetched."""

    terms: Text
    address: Annotated[str, Meta(pattern=ADDRESS)]
    accept: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """Published weights.

    `preset`, `image_size` and `memory` (as in an engine recipe) are those that they were published for. `addresses`
    are tried in turn; weights without one are fetched by a person, from `page`. `bytes` and `sha256` are the file's,
    where they are known.
    """

    name: Annotated[str, Meta(pattern=NAME)]
    preset: Text
    image_size: ImageSize
    licence: Text
    paper: Text
    addresses: tuple[Annotated[str, Meta(pattern=ADDRESS)], ...] = ()
    page: str = ""
    bytes: Annotated[int, Meta(ge=1)] | None = None
    sha256: Annotated[str, Meta(pattern=SHA256)] | None = None
    memory: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Weights that nobody can fetch are a mistake."""
        if not self.addresses and not self.page:
            raise mistake("addresses", [], "an address, or a page for people")

    @property
    def file_name(self) -> str:
        """The name of the file in the cache."""
        published = urlsplit(self.addresses[0]).path if self.addresses else ""
        return self.name + (".safetensors" if PurePosixPath(published).suffix == ".safetensors" else ".pt")


@dataclass(frozen=True, slots=True)
class _File:
    weights: tuple[Entry, ...]
    licences: Any


@dataclass(frozen=True, slots=True)
class Table:
    """All published weights by name, and the licences by name."""

    entries: dict[str, Entry]
    licences: dict[str, Licence]

    def licence_of(self, entry: Entry) -> Licence:
        return self.licences[entry.licence]


def read_table() -> Table:
    """The table that comes with the package."""
    return _read(TABLE)


@cache
def _read(path: Path) -> Table:
    file = convert(read_toml(path), _File, str(path))
    licences = {name: convert(values, Licence, f"{path}: licences: {name}") for name, values in file.licences.items()}
    entries = {entry.name: entry for entry in file.weights}
    if len(entries) < len(file.weights):
        raise WeightsError(f"{path}: a name is there twice; expected each once")
    for entry in file.weights:
        if entry.licence not in licences:
            raise WeightsError(f"{path}: {entry.name}: licence = {entry.licence!r}; expected one of the licences above")
    return Table(entries, licences)


def find_entry(name: str) -> Entry:
    """The weights of this name. Raises `WeightsError` that names the nearest ones."""
    entries = read_table().entries
    if name not in entries:
        raise WeightsError(f"weights {name!r}: no published weights of this name; {did_you_mean(name, entries)}")
    return entries[name]
