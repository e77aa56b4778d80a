"""The sound of a recording in its `overlay.mp4`: found by `run.json`, once the result is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..base.files import atomic_path
from ..grab.decode.image_header import holds_images
from ..grab.demux.http_file import is_web_recording
from ..grab.demux.parts import parts_of
from ..grab.medical import is_medical
from ..grab.paths import for_ffmpeg, kind_of
from ..grab.url_list import expanded
from ..publish.mp4_sound import Sound, add_sound

RUN, OVERLAY = "run.json", "overlay.mp4"


def copy_sound(folder: Path) -> None:
    """Add the source's sound to the overlay of a result, and write to `run.json` how: `sound`.

    Raises `OutputError` if it cannot be written; the overlay is as it was then.
    """
    run = json.loads((folder / RUN).read_text("utf-8"))
    overlay = folder / OVERLAY
    source = run["source"]
    uris = expanded([source] if isinstance(source, str) else source)
    if not overlay.is_file() or not all(_is_video(uri) for uri in uris):
        return
    sounds = _sounds(uris, run["source_account"], None if run["complete"] else _length_s(folder))
    outcome = add_sound(overlay, sounds) if isinstance(sounds, list) else sounds
    if outcome:
        run["sound"] = outcome
        with atomic_path(folder / RUN) as part:
            part.write_text(json.dumps(run, indent=2) + "\n", "utf-8")


def _is_video(uri: str) -> bool:
    """Whether a source is a file or a recording on a web server, which can be read a second time."""
    path = Path(uri)
    return is_web_recording(uri) or (kind_of(uri) == "file" and not holds_images(path) and not is_medical(path))


def _length_s(folder: Path) -> Fraction:
    """The time of the last frame of a result that ended early, from its beginning."""
    seconds = [image["seconds"] for image in json.loads((folder / "masks.json").read_text("utf-8"))["images"]]
    return Fraction(seconds[-1] - seconds[0]) if seconds else Fraction(0)


def _sounds(uris: Sequence[str], account: dict[str, Any], end_s: Fraction | None) -> list[Sound] | str:
    """Where the sound of each file lies; or a reason to leave it out."""
    start_s = Fraction(account["start_s"])
    if "times" in account["repaired"] or any(kind_of(uri) == "file" and len(parts_of(Path(uri))) > 1 for uri in uris):
        return "left out, for the times of the source begin anew"
    urls = [for_ffmpeg(uri) if kind_of(uri) == "file" else uri for uri in uris]
    if len(uris) == 1:
        return [Sound(urls[0], -start_s, Fraction(0), end_s)]
    parts = account["parts"]
    starts = [Fraction(part["seconds"]) - start_s for part in parts]
    ends = [*starts[1:], end_s]
    return [
        Sound(url, Fraction(part["offset_s"]) - start_s, start, end)
        for url, part, start, end in zip(urls, parts, starts, ends, strict=False)
    ]
