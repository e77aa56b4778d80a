"""`eval.json` and `masks.json.gz`: an evaluation is written to disk and read back without loss.

`eval.json` is one document, with a line for each key: `format` and `version`; `settings` and `made_by`; `summary`, for
people (programs compute it from the rows); `tracks`, the objects; `rows`, `classes` and `volumes` by column, to keep
the file small; `tracked`: prompts, given frames and times by sequence; and `masks`, the name and the hash of the second
file, which has every mask as COCO's compressed RLE. With the data set all figures can be computed again.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError, OutputError
from .result import ClassRow, Prediction, Result, Row, Tracked, VolumeRow

FILE, MASKS = "eval.json", "masks.json.gz"
FORMAT, VERSION = "rtseg evaluation", 3
AGAIN = "run rtseg eval again"

Json = dict[str, Any]
Columns = dict[str, tuple[type, ...]]

_NUMBER, _MAYBE = (float, int), (float, int, type(None))
TRACK: Columns = {"sequence": (str,), "object": (int,), "label": (str,), "category": (str,), "pixels": (int,)}
AREAS: Columns = {"truth_area": (int,), "mask_area": (int,), "overlap_area": (int,)}
FIGURES: Columns = dict.fromkeys(("score", "dice", "iou", "boundary"), _NUMBER)
DISTANCES: Columns = dict.fromkeys(("hd95", "surface"), _MAYBE)
ROW: Columns = {"frame": (int,), "given": (bool,), **AREAS, **FIGURES, **DISTANCES, "clicks": (int,)}
CLASS: Columns = {"sequence": (str,), "frame": (int,), "category": (str,), **AREAS}
VOLUME: Columns = {"sequence": (str,), "object": (int,), **DISTANCES}
SHARES = ("score", "dice", "iou", "boundary", "surface")  # from 0 to 1; all other figures are 0 or more
MASK: Columns = {"object": (int,), "counts": (str,), "score": _NUMBER}


class _DamageError(ValueError):
    """What is wrong with a document; `read` says where."""


def write(folder: Path, result: Result, summary: Mapping[str, Any]) -> None:
    """Write both files into a folder. `settings`, `made_by`, prompts and `summary` have to be JSON values.

    Raises `OutputError` for a figure that is not finite, because JSON has no NaN.
    """
    tracks: dict[tuple[Any, ...], int] = {}
    of_row = [tracks.setdefault(_values(row, TRACK), len(tracks)) for row in result.rows]
    try:
        packed = _packed({name: _masks(tracked) for name, tracked in result.tracked.items()})
        document = {
            "format": FORMAT,
            "version": VERSION,
            "settings": result.settings,
            "made_by": result.made_by,
            "summary": summary,
            "masks": {"file": MASKS, "sha256": sha256(packed).hexdigest()},
            "tracks": {name: [track[i] for track in tracks] for i, name in enumerate(TRACK)},
            "rows": {"track": of_row, **_columns(result.rows, ROW)},
            "classes": _columns(result.classes, CLASS),
            "volumes": _columns(result.volumes, VOLUME),
            "tracked": {name: _steps(tracked) for name, tracked in result.tracked.items()},
        }
        text = "{" + ",\n".join(f"{json.dumps(key)}: {_text(value)}" for key, value in document.items()) + "}\n"
    except ValueError as e:  # json does not name the figure; `_culprit` does
        raise OutputError(
            f"{folder / FILE}: {_culprit(result)} is not a number; check the engine: rtseg build --force RECIPE"
        ) from e
    (folder / MASKS).write_bytes(packed)
    (folder / FILE).write_text(text, "ascii")


def read(path: Path, *, masks: bool = True) -> Result:
    """The evaluation that `write` has stored in an `eval.json`, given by its path or its folder.

    Without `masks` the second file is not opened, and `Tracked.masks` stays empty. Raises `ConfigError` for a file that
    is no evaluation, is damaged, or is of another version of rtseg.
    """
    path = path / FILE if path.is_dir() else path
    document = _document(path)
    try:
        result = _result(document)
    except (_DamageError, KeyError, TypeError) as e:
        raise ConfigError(f"{path}: damaged ({_why(e)}); {AGAIN}") from e
    if masks:
        _read_masks(path.parent / MASKS, document, result)
    return result


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _values(row: object, columns: Columns) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in columns)


def _columns(rows: Sequence[object], columns: Columns) -> Json:
    """Each figure of all rows as a list, in the order of the rows; booleans as 0 or 1."""
    taken = {name: [getattr(row, name) for row in rows] for name in columns}
    return {name: list(map(int, taken[name])) if kinds == (bool,) else taken[name] for name, kinds in columns.items()}


def _masks(tracked: Tracked) -> Json:
    """The frames, the number of objects on each, and the masks of these objects one after the other."""
    each = [(id_, mask) for of_frame in tracked.masks.values() for id_, mask in of_frame.items()]
    return {
        "frames": list(tracked.masks),
        "objects": [len(of_frame) for of_frame in tracked.masks.values()],
        "object": [id_ for id_, _ in each],
        "counts": [mask.counts.decode("ascii") for _, mask in each],
        "score": [mask.score for _, mask in each],
    }


def _steps(tracked: Tracked) -> Json:
    given = sorted(map(list, tracked.given))
    about = {"volume": tracked.volume, "group": tracked.group}
    return {"prompts": tracked.prompts, "given": given, "ms": tracked.ms, **about}


def _packed(masks: Json) -> bytes:
    """Compressed JSON. The same masks always give the same bytes."""
    return gzip.compress(_text({"format": FORMAT, "version": VERSION, "sequences": masks}).encode("ascii"), mtime=0)


def _culprit(result: Result) -> str:
    """Name the figure that is not finite."""
    for row in result.rows:
        for name in (*FIGURES, *DISTANCES):
            value = getattr(row, name)
            if value is not None and not math.isfinite(value):
                return f"{row.sequence}, object {row.object}, frame {row.frame}: {name} = {value}"
    for sequence, tracked in result.tracked.items():
        for frame, of_frame in tracked.masks.items():
            for id_, mask in of_frame.items():
                if not math.isfinite(mask.score):
                    return f"{sequence}, object {id_}, frame {frame}: score = {mask.score}"
    return "a figure of the settings, the summary, the prompts or the times"


def _document(path: Path) -> Json:
    """The parsed file. Raises `ConfigError` unless it is an evaluation that this rtseg can read."""
    try:
        document = json.loads(path.read_text("utf-8"), parse_constant=_no_number)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); expected what rtseg eval wrote") from e
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{path}: not a whole JSON document ({e}); expected what rtseg eval wrote") from e
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError(f"{path}: not an evaluation; expected the {FILE} that rtseg eval wrote")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise ConfigError(f"{path}: damaged (version {version!r}); {AGAIN}")
    if version < VERSION:  # version 1 left out frames that clicks corrected, and had no tolerance in mm
        raise ConfigError(f"{path}: version {version}, of an older rtseg, which counted differently; {AGAIN}")
    if version > VERSION:
        raise ConfigError(f"{path}: version {version}, of a newer rtseg; this one reads {VERSION}; update rtseg")
    return document


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _result(document: Json) -> Result:
    result = Result(_table(document, "settings"), _table(document, "made_by"))
    tracks = _read_columns(_table(document, "tracks"), "tracks", TRACK)
    rows = _read_columns(_table(document, "rows"), "rows", {"track": (int,), **ROW})
    for track, *figures in rows:
        if not 0 <= track < len(tracks):
            raise _DamageError(f"rows: track {track} of {len(tracks)}")
        sequence, object_, label, category, pixels = tracks[track]
        frame, given, *measured = figures
        result.rows.append(Row(sequence, object_, label, category, frame, given, pixels, *measured))
    classes = _read_columns(_table(document, "classes"), "classes", CLASS)
    result.classes = [ClassRow(*values) for values in classes]
    volumes = _read_columns(_table(document, "volumes"), "volumes", VOLUME)
    result.volumes = [VolumeRow(*values) for values in volumes]
    for name, steps in _table(document, "tracked").items():
        result.tracked[name] = _read_steps(steps, f"tracked {name}")
    return result


def _table(document: Json, key: str) -> Json:
    value = document[key]
    if not isinstance(value, dict):
        raise _DamageError(f"{key} is not a table")
    return value


def _read_columns(table: Json, where: str, columns: Columns) -> list[tuple[Any, ...]]:
    """Rows made of columns. Each column has to be a list of values of its type and range, and all of one length."""
    read = []
    for name, kinds in columns.items():
        column = table[name]
        if kinds == (bool,) and isinstance(column, list) and set(column) <= {0, 1}:
            column = [value == 1 for value in column]
        if not isinstance(column, list) or any(type(value) not in kinds for value in column):
            raise _DamageError(f"{where}: {name} is not a list of {kinds[0].__name__}")
        most = 1 if name in SHARES else math.inf
        wrong = [value for value in column if isinstance(value, int | float) and not 0 <= value <= most]
        if wrong:
            raise _DamageError(f"{where}: {name} = {wrong[0]}; expected 0 {'to 1' if most == 1 else 'or more'}")
        read.append(column)
    if len(set(map(len, read))) > 1:
        raise _DamageError(f"{where}: columns of different lengths")
    return list(zip(*read, strict=True))


def _read_steps(steps: Json, where: str) -> Tracked:
    prompts, given, ms = steps["prompts"], steps["given"], steps["ms"]
    pairs = isinstance(given, list) and all(
        isinstance(pair, list) and [type(x) for x in pair] == [int, int] for pair in given
    )
    if not pairs or not isinstance(prompts, list) or any(not isinstance(prompt, dict) for prompt in prompts):
        raise _DamageError(f"{where}: prompts or given are not of the form that rtseg eval writes")
    times = [time for (time,) in _read_columns({"ms": ms}, where, {"ms": _NUMBER})]
    volume, group = steps["volume"], steps["group"]
    if type(volume) is not bool or type(group) is not str:
        raise _DamageError(f"{where}: volume is not true or false, or group no text")
    return Tracked({}, {(frame, id_) for frame, id_ in given}, prompts, times, volume, group)


def _read_masks(path: Path, document: Json, result: Result) -> None:
    """Fill in the masks of `result`, from the file whose hash the document holds."""
    try:
        packed = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); expected it beside {FILE}") from e
    try:
        if sha256(packed).hexdigest() != document["masks"]["sha256"]:
            raise _DamageError(f"its hash is not the one in {FILE}")
        sequences = json.loads(gzip.decompress(packed))["sequences"]
        for name, tracked in result.tracked.items():
            tracked.masks = _unpacked(sequences[name], name)
    except (ValueError, KeyError, TypeError, OSError) as e:
        raise ConfigError(f"{path}: damaged ({_why(e)}); {AGAIN}") from e


def _unpacked(table: Json, where: str) -> dict[int, dict[int, Prediction]]:
    frames = _read_columns(table, where, {"frames": (int,), "objects": (int,)})
    each = _read_columns(table, where, MASK)
    if sum(count for _, count in frames) != len(each):
        raise _DamageError(f"{where}: more or fewer masks than the frames have")
    rest = iter(each)
    masks: dict[int, dict[int, Prediction]] = {}
    for frame, count in frames:
        of_frame = islice(rest, count)
        masks[frame] = {id_: Prediction(counts.encode("ascii"), score) for id_, counts, score in of_frame}
    return masks
