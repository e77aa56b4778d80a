"""Data sets as sequences, each layout in a file of its own, which says what the layout is and where it is defined.

A reader has three things: `EXPECTED`, the layout in one line; `found(path)`, whether that is what lies there; and
`read(path)`, which lists folders and leaves pictures and masks alone until a sequence is asked for them.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from pathlib import Path, PurePosixPath
from types import ModuleType

from ..base.errors import ConfigError, SourceError, did_you_mean
from . import cholecseg8k, davis, endovis2017, endovis2018, isinet, nifti, sa_med2d, sa_v, synthetic, video
from .dataset import Dataset, Sequence
from .lazy import Found

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
    "video": video,  # last, as the least particular: it is taken only where no other fits
}
SHORT = 300  # characters of a hint
MANY = 10_000  # names, among which to look for the nearest takes seconds


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
            raise ConfigError(f"{path}: a synthetic data set says all in its name; leave layout and sequences out")
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
    if not reader.found(folder):
        raise ConfigError(f"{path}: not laid out as {name}; expected {reader.EXPECTED}")
    told = {"nifti": (options,), "sa-med2d": (sequences,)}  # SA-Med2D is too large to be listed for one case
    found: Found = reader.read(folder, *told.get(name, ()))
    _check_names(path, found)
    if sequences:
        return Dataset(folder.name, name, _select(path, found, sequences))
    return Dataset(folder.name, name, found.sequences, found.unannotated)


def _recognise(folder: Path) -> str:
    fitting = [name for name, reader in LAYOUTS.items() if reader.found(folder)]
    if len(fitting) > 1 and fitting[-1] == "video":
        fitting.pop()
    if len(fitting) > 1:
        raise ConfigError(f"{folder}: may be laid out as {' or '.join(fitting)}; say which")
    if not fitting:
        known = "; ".join(f"{name}: {reader.EXPECTED}" for name, reader in LAYOUTS.items())
        raise ConfigError(f"{folder}: no layout that is known; expected one of: {known}")
    return fitting[0]


def _check_names(path: str | Path, found: Found) -> None:
    names = [sequence.name for sequence in found.sequences]
    if not names and not found.others:
        raise SourceError(f"{path}: holds no sequence that is annotated; expected at least one")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise SourceError(f"{path}: two sequences are called {twice!r}; open the folder of one of them")


def _select(path: str | Path, found: Found, wanted: Series[str]) -> tuple[Sequence, ...]:
    """The sequences that are wanted, in the data set's order."""
    known = {sequence.name for sequence in found.sequences}
    groups = {parent.as_posix() for name in known for parent in PurePosixPath(name).parents} - {"."}
    chosen: set[str] = set()
    for name in wanted:
        if name in known:
            chosen.add(name)
        elif name in found.splits:
            missing = [member for member in found.splits[name] if member not in known]
            if missing:
                raise SourceError(f"{path}: {missing[0]!r} of the split {name!r} is not there; expected all of them")
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
