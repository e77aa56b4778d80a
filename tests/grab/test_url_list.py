"""Lists of sources: in a text file, or several; files and recordings on a web server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.grab import open_source
from rtseg.grab.url_list import expanded

from .test_damage import COUNT, recording
from .test_recordings import web


def test_a_list_is_one_recording_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    one, two = recording(tmp_path / "one.mp4"), recording(tmp_path / "videos/two.mp4")
    with web(one.read_bytes()) as (uri, _):
        (tmp_path / "list.txt").write_text(f"\ufeff# an operation\n\n{uri}\n  videos/two.mp4  \n", "utf-8")
        for given in (tmp_path / "list.txt", [uri, two]):
            with open_source(given) as source:
                frames = list(source)
            assert len(frames) == 2 * COUNT == source.account.count and [f.seq for f in frames] == list(
                range(2 * COUNT)
            )
            assert np.diff([f.seconds for f in frames]).min() > 0
            for a, b in zip(frames, [*open_source(one), *open_source(two)], strict=True):
                np.testing.assert_array_equal(a.image_hwc, b.image_hwc)
        assert expanded([str(tmp_path / "list.txt"), "x.mp4"]) == [uri, str(two), "x.mp4"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "names no source"), (b"# nothing\n", "names no source"), (b"\x00\x01\x02\x03", "not a text file"),
        (b"other.txt\n", "names the list other.txt"), (b"gone.mp4\n", "gone.mp4.*no such file"),
        (b"https://\n", "https://"), (b"\xff\xff\xfa", "not a text file"),
    ],
)  # fmt: skip
def test_a_wrong_list_is_one_line(tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(SourceError, match=line) as caught:
        open_source(tmp_path / "l.txt")
    assert "\n" not in str(caught.value)
