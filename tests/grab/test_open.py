"""Where a uri leads, and what is said when it leads nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtseg.errors import SourceError
from rtseg.grab import open_source


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nowhere/clip.mp4", "no such file or folder"),
        ("rtsp://camera/1", "live inputs cannot be opened yet"),
        ("srt://host:9000", "live inputs cannot be opened yet"),
        ("/dev/video0", "live inputs cannot be opened yet"),
        ("rstp://camera/1", "unknown scheme 'rstp'; did you mean 'rtsp'"),
        ("synthetik:laparoscopy", "unknown scheme 'synthetik'; did you mean 'synthetic'"),
        ("", "no such file or folder"),
    ],
)
def test_what_cannot_be_opened_is_one_line(uri: str, says: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fps", [0, -1, 5000, float("nan")])
def test_an_impossible_rate_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(SourceError, match="expected a number from"):
        open_source(tmp_path, fps=fps)


def test_the_synthetic_source_needs_no_pyav() -> None:
    code = (
        "import sys; from rtseg.grab import open_source; "
        "next(iter(open_source('synthetic:laparoscopy?width=64&height=64'))); sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
