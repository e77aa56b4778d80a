"""Pictures that a container lists, or has a place for, and that do not come: each is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from rtseg.base.errors import SourceError
from rtseg.grab import open_source
from rtseg.grab.decode.bitstream import is_disposable, is_key, length_size
from rtseg.grab.demux.demuxer import Demuxer
from rtseg.grab.demux.tee import Tee

from .test_damage import COUNT, recording, said, same, seen


def blocks(path: Path) -> list[tuple[int, int]]:
    """Where each packet of the video is, and its size."""
    with av.open(str(path)) as container:
        return [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("sound", [False, True])
def test_a_hole_in_a_cluster_of_matroska_is_said(tmp_path: Path, sound: bool) -> None:
    whole, torn = recording(tmp_path / "whole.mkv", sound=sound), tmp_path / "torn.mkv"
    source = open_source(whole)
    clean = seen(source)
    assert len(clean) == COUNT and said(source) == []
    for place, _ in blocks(whole)[3:33:5]:
        data = bytearray(whole.read_bytes())
        data[place - 20 : place + 20] = bytes(40)
        torn.write_bytes(data)
        source = open_source(torn)
        images = seen(source)
        same(images, clean)
        assert len(images) < COUNT and source.account.damaged >= COUNT - len(images) - 2, f"byte {place}"


@pytest.mark.parametrize("sound", [False, True])
def test_matroska_that_lacks_its_last_bytes_and_pictures_among_the_last_is_cut_off(tmp_path: Path, sound: bool) -> None:
    whole, torn = recording(tmp_path / "whole.mkv", sound=sound), tmp_path / "torn.mkv"
    data = whole.read_bytes()
    for place, _ in blocks(whole)[-4:]:
        torn.write_bytes(data[: place + 10])
        with pytest.raises(SourceError, match="cut off"):
            seen(open_source(torn))


def test_a_chunk_that_the_index_of_avi_lists_and_that_does_not_come_is_said(tmp_path: Path) -> None:
    whole, torn = recording(tmp_path / "whole.avi", bf="0"), tmp_path / "torn.avi"
    source = open_source(whole)
    clean = seen(source)
    assert len(clean) == COUNT and said(source) == []
    for place, _ in blocks(whole)[2:32:5]:
        data = bytearray(whole.read_bytes())
        data[place - 8 : place] = bytes(8)
        torn.write_bytes(data)
        source = open_source(torn)
        images = seen(source)
        same(images, clean)
        assert len(images) < COUNT and source.account.damaged == COUNT - len(images), f"byte {place}"


def test_a_length_is_no_start_code() -> None:
    """A picture of 0x125 bytes in MP4 is no key frame, and one of 0x101 is needed by others."""
    extradata = bytes([1, 100, 0, 30, 0xFF, 0xE0, 0])
    size = length_size("h264", extradata)
    needed = bytes([0x41, 0x9A, 0x11])
    assert size == 4 and length_size("h264", b"\0\0\0\1\x67") == 0 and length_size("vp9", extradata) == 0
    for length in (0x101, 0x125):
        picture = length.to_bytes(4, "big") + needed + b"\x55" * (length - 3)
        assert not is_key("h264", picture, size) and not is_disposable("h264", picture, size)
    key = (9).to_bytes(4, "big") + b"\x65" + b"\x55" * 8
    assert (
        is_key("h264", key, size) and is_key("h264", b"\0\0\0\1" + key[4:]) and is_disposable("h264", b"\0\0\1\1\x9a")
    )


def test_an_unknown_code_is_one_line(tmp_path: Path) -> None:
    path = recording(tmp_path / "whole.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(25)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(SourceError, match="unknown codec"):
        open_source(path)


def test_a_last_cluster_that_is_not_found_is_said(tmp_path: Path) -> None:
    whole, torn = recording(tmp_path / "whole.mkv"), tmp_path / "torn.mkv"
    data = bytearray(whole.read_bytes())
    place = data.rfind(b"\x1f\x43\xb6\x75")
    data[place : place + 4] = bytes(4)
    torn.write_bytes(data)
    source = open_source(torn)
    images = seen(source)
    same(images, seen(open_source(whole)))
    assert len(images) < COUNT and source.account.damaged == COUNT - len(images)


class _Interrupted:
    def read(self, size: int, /) -> bytes:
        raise KeyboardInterrupt

    def close(self) -> None:
        """Nothing is open."""


def test_an_interrupt_while_a_pipe_is_opened_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt):
        Demuxer(Tee(_Interrupted()), "-")
