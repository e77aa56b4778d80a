"""Readers of data sets. Each module reads one layout; its docstring describes the layout and cites its definition.

A reader has three members: `EXPECTED` describes the layout in one line, `matches(path)` tells whether a folder has this
layout, and `read(path)` lists its sequences. Images and masks are read later, when a sequence is asked for them.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from pathlib import Path, PurePosixPath
from types import ModuleType

from ..base.errors import ConfigError, SourceError, did_you_mean
from . import cholecseg8k, davis, endovis2017, endovis2018, isinet, nifti, sa_med2d, sa_v, synthetic, video
from .dataset import Dataset, Sequence
from .lazy_sequence import Listing

__all__ = ["LAYOUTS", "open_dataset"]

LAYOUTS: dict[str, ModuleType] = {
    "davis": davis,
    "endovis2017": endovis2017,
    "endovis2018": endovis2018,
    "isinet": isinet,
    "cholecseg8k": cholecseg8k,
    "sa-med2d": sa_med2d,
    "sa-v": sa_v,
    "nifti": nifti,
    "video": video,  # last, because it is the least specific: it is chosen only if no other layout matches
}
SHORT = 300  # the longest hint, in characters
MANY = 10_000  # from this many names on, finding the nearest one takes seconds


def open_dataset(path: str | Path, layout: str | None = None, sequences: Series[str] = ()) -> Dataset:
    """Open a data set. No picture and no mask is read yet.

    Arguments:
        path: the data set's folder, or `synthetic:laparoscopy?seed=10000-10009`.
        layout: a key of `LAYOUTS`, such as "davis"; None recognises it. "nifti:lung:3,0,1" is "nifti" with a window
            and the modalities that become red, green and blue.
        sequences: those to keep, all if empty: names of sequences, of splits that the data set defines ("val",
            "fold0"), or of folders of sequences ("valid" for "valid/seq_2").

    Raises:
        ConfigError: a layout or a sequence is unknown or ambiguous.
        SourceError: the files are not as the layout says.
    """
    if str(path).startswith(synthetic.PREFIX):
        if layout or sequences:
            raise ConfigError(f"{path}: a synthetic data set has no layout and no sequences; leave them out")
        return Dataset("synthetic", "synthetic", synthetic.read(str(path)))
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise SourceError(f"{path}: no such folder; expected the folder of a data set")
    name, _, options = (layout or _recognise(folder)).partition(":")
    if name not in LAYOUTS:
        raise ConfigError(f"layout {name!r}: unknown; {did_you_mean(name, LAYOUTS)}")
    if options and name != "nifti":
        raise ConfigError(f"layout {layout!r}: only nifti has windows and modalities; leave {options!r} out")
    reader = LAYOUTS[name]
    if not reader.matches(folder):
        raise ConfigError(f"{path}: not laid out as {name}; expected {reader.EXPECTED}")
    more = {"nifti": (options,), "sa-med2d": (sequences,)}  # SA-Med2D is too large to list all of it for one case
    found: Listing = reader.read(folder, *more.get(name, ()))
    _check_names(path, found)
    if sequences:
        return Dataset(folder.name, name, _select(path, found, sequences))
    return Dataset(folder.name, name, found.sequences, found.unannotated)


def _recognise(folder: Path) -> str:
    matching = [name for name, reader in LAYOUTS.items() if reader.matches(folder)]
    if len(matching) > 1 and matching[-1] == "video":
        matching.pop()
    if len(matching) > 1:
        raise ConfigError(f"{folder}: matches the layouts {' and '.join(matching)}; name one of them")
    if not matching:
        known = "; ".join(f"{name}: {reader.EXPECTED}" for name, reader in LAYOUTS.items())
        raise ConfigError(f"{folder}: of no known layout; expected one of: {known}")
    return matching[0]


def _check_names(path: str | Path, found: Listing) -> None:
    names = [sequence.name for sequence in found.sequences]
    if not names and not found.others:
        raise SourceError(f"{path}: holds no annotated sequence; expected at least one")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise SourceError(f"{path}: two sequences are called {twice!r}; open the folder of one of them")


def _select(path: str | Path, found: Listing, wanted: Series[str]) -> tuple[Sequence, ...]:
    """The selected sequences, in the data set's order."""
    known = {sequence.name for sequence in found.sequences}
    groups = {parent.as_posix() for name in known for parent in PurePosixPath(name).parents} - {"."}
    chosen: set[str] = set()
    for name in wanted:
        if name in known:
            chosen.add(name)
        elif name in found.splits:
            missing = [member for member in found.splits[name] if member not in known]
            if missing:
                raise SourceError(f"{path}: {missing[0]!r} of the split {name!r} is missing; expected all of them")
            chosen |= set(found.splits[name])
        elif name in groups:
            chosen |= {member for member in known if member.startswith(f"{name}/")}
        else:
            raise ConfigError(
                f"{path}: no sequence {name!r}; {_hint(name, [*found.splits, *groups, *known, *found.others])}"
            )
    return tuple(sequence for sequence in found.sequences if sequence.name in chosen)


def _hint(name: str, known: list[str]) -> str:
    known = sorted(known)
    hint = did_you_mean(name, known) if len(known) < MANY else ""
    return hint if 0 < len(hint) < SHORT else f"expected one of {len(known)}, such as {', '.join(known[:3])}"
