"""`report.html` and `index.html`: what they say, that they need nothing else, and that text from files stays text."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from rtseg.base.errors import ConfigError, SourceError
from rtseg.cli import main
from rtseg.grab.random_access import open_frames
from rtseg.grab.stills import stills
from rtseg.offline.review import write_index, write_report
from rtseg.offline.review.html import clock, lasting
from tests.offline.review.results import FPS, STILL, level, still, write_overlay, write_result

HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "</style><b>", "]]>-->",
    "javascript:alert(1)", "&lt;b&gt;", "\x00\x1b[31m\u202edcba\ud800", "${alert(1)}", "{{7*7}}",
]  # fmt: skip


class Page(HTMLParser):
    """The elements of a page, its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [str(given[name]) for each, given in self.tags if each == tag and name in given]


def page_of(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def test_a_report_shows_frames_of_the_overlay_at_its_moments(tmp_path: Path) -> None:
    out = write_result(tmp_path / "op", lambda frame: {1: (STILL, 0.2 if frame == 30 else 0.95)})
    page = page_of(write_report(out))
    shown = dict(zip(page.values("img", "alt"), page.values("img", "src"), strict=True))
    assert list(shown) == ["Frame 30 with its masks", "Frame 0 with its masks"]
    for alt, address in shown.items():
        head, _, data = address.partition(",")
        assert head == "data:image/jpeg;base64"
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        frame = int(alt.split()[1])
        assert picture is not None and abs(float(picture.mean()) - level(frame)) < 3  # neighbours differ by 8
    assert "confidence falls to 0.20" in page.text and "0:01.2" in page.text
    links = page.values("a", "href")
    assert "http://127.0.0.1:8080/#frame=30" in links and "rtseg console '/data/ward 3/op.mp4'" in page.text


def test_a_report_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = write_report(write_result(tmp_path / "op")).read_text("utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    assert all(address.startswith("data:image/jpeg") for address in page.values("img", "src"))
    assert not re.search(r"url\(|@import", text)
    (policy,) = [given["content"] for _, given in page.tags if given.get("http-equiv")]
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_text_from_files_stays_text(tmp_path: Path) -> None:
    names = {i + 1: label for i, label in enumerate(HOSTILE)}
    gap = {"before": 9, "seconds": 3600.3, "lost": 3, "why": HOSTILE[1]}
    out = write_result(
        tmp_path / "a" / 'x" onclick="alert(1)<b>', lambda frame: dict.fromkeys(names, (STILL, 0.9)), names=names,
        complete=False, ended=HOSTILE[0], warnings=[f"frame 3: {HOSTILE[2]}", HOSTILE[3]], faults=HOSTILE,
        source=HOSTILE[1], engine=HOSTILE[0], sha256={"weights": HOSTILE[0]}, files=[{"path": HOSTILE[1]}],
        source_account={"gaps": [gap], "assumed": {HOSTILE[0]: HOSTILE[1]}, "repaired": {"<b>": "<i>"}},
        versions={"rtseg": HOSTILE[0]}, overlay=False,
    )  # fmt: skip
    report = write_report(out)
    index = write_index(tmp_path / "a")
    harmless = write_report(write_result(tmp_path / "b", overlay=False))
    allowed = {tag for tag, _ in page_of(harmless).tags} | {"rect", "line", "br", "ol"}
    for path in (report, index):
        page = page_of(path)
        assert {tag for tag, _ in page.tags} - allowed <= {"script", "button"}
        assert not [name for _, given in page.tags for name in given if name.startswith("on")]
        assert all(address.startswith(("http://127.0.0.1:8080/#frame=", "./")) for address in page.values("a", "href"))
    assert not page_of(report).values("script", "src") and len(page_of(index).values("script", "src")) == 0
    assert sum(tag == "script" for tag, _ in page_of(index).tags) == 1  # its own
    for label in HOSTILE[:7] + HOSTILE[8:]:
        assert label in page_of(report).text  # as it is


def test_run_json_may_hold_anything(tmp_path: Path) -> None:
    for i, odd in enumerate((None, 3, "x", [], {}, [None], {"x": None}, 1e400, -1)):
        keys = (
            "faults",
            "warnings",
            "source",
            "files",
            "engine",
            "frames",
            "source_account",
            "sha256",
            "versions",
            "ended",
        )
        out = write_result(tmp_path / "all" / str(i), count=3, overlay=False, **dict.fromkeys(keys, odd))
        assert "</html>" in write_report(out).read_text("utf-8")
        gaps = {"gaps": [odd, {"before": odd}, {"before": 1, "seconds": odd, "lost": odd, "why": odd}]}
        write_report(write_result(tmp_path / "gaps" / str(i), count=3, overlay=False, source_account=gaps))
        (out / "review.json").write_text(json.dumps({"objects": odd, "counts": odd, "seconds": odd}))
    assert write_index(tmp_path / "all").read_text("utf-8").count("<tr") > 9


def test_without_a_readable_overlay_the_report_says_so(tmp_path: Path) -> None:
    out = write_result(tmp_path / "op", overlay=False)
    page = page_of(write_report(out))
    assert not page.values("img", "src") and "Pictures are missing here: " in page.text
    (out / "overlay.mp4").write_bytes(b"no video")
    assert "Pictures are missing here: " in page_of(write_report(out)).text
    write_overlay(out / "overlay.mp4", 50)
    assert "Pictures are missing" not in page_of(write_report(out)).text


def test_a_de_identified_result_names_no_recording(tmp_path: Path) -> None:
    hidden = {"hidden": 12, "shown": 88, "note": "judged by a program", "asked": ["out-of-body"]}
    run = {"source": "source", "files": [{"uri": "source", "bytes": 3}], "deidentified": hidden, "overlay": False}
    page = page_of(write_report(write_result(tmp_path / "a", **run)))  # type: ignore[arg-type]
    assert "rtseg console RECORDING" in page.text and "De-identified: 12 frames blurred" in page.text
    assert "op.mp4" not in page.text
    assert "op.mp4" in page_of(write_report(write_result(tmp_path / "b", overlay=False))).text


def test_what_the_console_cannot_open_has_no_links(tmp_path: Path) -> None:
    for i, source in enumerate(("-", ["a.mp4", "b.mp4"], "rtsp://camera", None)):
        page = page_of(write_report(write_result(tmp_path / str(i), source=source, overlay=False)))
        assert [address for address in page.values("a", "href") if "#frame" in address] == []
        assert "Times have no links" in page.text


def test_the_links_numbers_are_the_consoles(tmp_path: Path) -> None:
    """A damaged recording: `segment` counts whole frames, the console counts all."""
    write_overlay(tmp_path / "op.mp4", 60)
    frames = open_frames(tmp_path / "op.mp4")
    kept = [*range(20), *range(28, 60)]  # frames 20 to 27 were damaged
    gap = {"before": 20, "seconds": 28 / FPS, "lost": 8, "why": "damaged"}
    out = write_result(
        tmp_path / "out", lambda frame: {1: (STILL, 0.2 if frame in (10, 40) else 0.9)}, len(kept), overlay=False,
        seconds=lambda frame: kept[frame] / FPS, source_account={"gaps": [gap]},
    )  # fmt: skip
    page = page_of(write_report(out))
    linked = {int(address.partition("#frame=")[2]) for address in page.values("a", "href") if "#frame" in address}
    assert {10, 48} <= linked and 40 not in linked
    assert [frames.seconds(number) for number in (10, 48)] == pytest.approx([kept[10] / FPS, kept[40] / FPS])
    frames.close()


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_overlay(tmp_path / "a.mp4", 800)  # a key frame each 250
    read = 0

    def counting(path: Path, times: list[float]) -> dict[int, float]:
        import av

        nonlocal read
        decode = av.container.InputContainer.decode

        def counted(self: object, *streams: object) -> object:
            nonlocal read
            for frame in decode(self, *streams):  # type: ignore[arg-type]
                read += 1
                yield frame

        fake = type(
            "Av",
            (),
            {"open": staticmethod(lambda name: Counting(av.open(name), counted)), "FFmpegError": av.FFmpegError},
        )
        monkeypatch.setattr("rtseg.grab.stills.av", fake)
        return {place: float(picture.mean()) for place, picture in stills(path, times, 320)}

    frames = [790, 3, 5, 5, 520]
    found = counting(tmp_path / "a.mp4", [frame / FPS for frame in frames])
    assert {place: round(value) for place, value in found.items()} == pytest.approx(
        {place: level(frame) for place, frame in enumerate(frames)}, abs=3
    )
    assert read < 100  # 6, 20 and 40 from the key frames on, of 800


class Counting:
    """A container whose decoding is counted."""

    def __init__(self, container: object, decode: object) -> None:
        self._container, self._decode = container, decode

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()  # type: ignore[attr-defined]

    def decode(self, *streams: object) -> object:
        return self._decode(self._container, *streams)  # type: ignore[operator]

    def __getattr__(self, name: str) -> object:
        return getattr(self._container, name)


def test_stills_of_uneven_times_and_beyond_the_end(tmp_path: Path) -> None:
    uneven = [0.0, 0.04, 0.5, 0.54, 2.0]
    write_overlay(tmp_path / "a.mp4", 5, lambda frame: uneven[frame])
    times = [0.0, 0.3, 0.54, 1.9, 2.0, 99.0, -5.0]
    found = {place: round(float(picture.mean())) for place, picture in stills(tmp_path / "a.mp4", times, 64)}
    expected = {0: 0, 1: 1, 2: 3, 3: 3, 4: 4, 6: 0}
    assert found == pytest.approx({place: level(frame) for place, frame in expected.items()}, abs=3)
    assert next(stills(tmp_path / "a.mp4", [0.0], 64))[1].shape == (48, 64, 3)
    with pytest.raises(SourceError, match="cannot be read"):
        list(stills(tmp_path / "none.mp4", [0.0], 64))


def test_the_index_has_failures_first_and_totals(tmp_path: Path) -> None:
    for name in ("a", "deep/b", "c"):
        write_report(write_result(tmp_path / name, overlay=False))
    write_report(write_result(tmp_path / "z", complete=False, ended="the disk is full", overlay=False))
    write_result(tmp_path / "y", overlay=False)  # without a report
    write_result(tmp_path / ".hidden" / "h", overlay=False)
    write_result(tmp_path / "a.partial-0123abcd", overlay=False)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text("{")
    journal = [
        {"out": "lost", "state": "again", "source": "lost.mp4", "causes": ["worker died"]},
        {"out": "lost", "state": "failed", "source": "lost.mp4", "causes": ["worker died", "no such file"]},
        {"out": "c", "state": "failed", "source": "c.mp4", "causes": ["once"]},  # it is there
        {"out": "gone", "state": "failed"}, {"out": "gone", "state": "done"},
    ]  # fmt: skip
    (tmp_path / "archive.jsonl").write_text("\n".join(map(json.dumps, journal)) + '\n{"out": "tor')
    page = page_of(write_index(tmp_path))
    places = [given["data-v"] for tag, given in page.tags if tag == "th" and "data-v" in given]
    assert places == ["lost", "x", "z", "a", "c", "deep/b", "y"]
    assert {unquote(address) for address in page.values("a", "href")} == {
        "./z/report.html", "./a/report.html", "./c/report.html", "./deep/b/report.html", "./y/",
    }  # fmt: skip
    for text in ("no such file", "the disk is full", "run.json cannot be read", "Failed3", "Complete4", "Results7"):
        assert text in page.text
    assert "1 result has no report yet" in page.text
    page = page_of(write_index(tmp_path, {"never": "no such file", "a": "failed before"}))
    places = [given["data-v"] for tag, given in page.tags if tag == "th" and "data-v" in given]
    assert places == ["lost", "never", "x", "z", "a", "c", "deep/b", "y"]
    with pytest.raises(ConfigError, match="no result under it"):
        write_index(_empty(tmp_path))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_the_verb_goes_on_after_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_result(tmp_path / name, overlay=False)
    damaged = write_result(tmp_path / "damaged", overlay=False)
    (damaged / "masks.json").write_text("{}")
    assert main(["report", str(tmp_path / "a")]) == 0
    assert not (tmp_path / "index.html").exists()
    assert main(["report", str(tmp_path)]) == 1
    assert "1 failed: " in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "b" / "report.html").is_file() and (tmp_path / "index.html").is_file()
    assert not (damaged / "report.html").exists()
    assert main(["report", str(_empty(tmp_path))]) == 2


def test_times_in_words() -> None:
    assert [clock(s) for s in (0, 59.96, 3599.96, 7322.25)] == ["0:00.0", "1:00.0", "1:00:00.0", "2:02:02.2"]
    assert [clock(s, False) for s in (0, 59.6, 3600)] == ["0:00", "1:00", "1:00:00"]
    assert [lasting(s) for s in (0.04, 9.96, 61, 7322)] == ["0.0 s", "10 s", "1 min 01 s", "2 h 02 min"]


PEAK = """
import re, sys
from pathlib import Path
from rtseg.offline.review import write_report
write_report(Path(sys.argv[1]))
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_two_hours_take_the_memory_of_ten_minutes(tmp_path: Path) -> None:
    """180,000 frames: one frame of low confidence is drawn and listed; the report is as large as a short one's."""
    peaks, sizes = [], []
    for name, frames in (("short", 15_000), ("long", 180_000)):
        dip = frames - 1234
        out = write_result(
            tmp_path / name,
            lambda frame, dip=dip: {
                1: (STILL, 0.11 if frame == dip else 0.95), 2: (STILL, 0.9) if frame % 50 < 40 else None
            },
            frames, overlay=False,
        )  # fmt: skip
        done = subprocess.run([sys.executable, "-c", PEAK, str(out)], check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout))
        text = (out / "report.html").read_text("utf-8")
        sizes.append(len(text))
        page = Page(text)
        assert f"http://127.0.0.1:8080/#frame={dip}" in page.values("a", "href")
        assert "confidence falls to 0.11" in page.text
        assert max(int(box.split()[2]) for box in page.values("svg", "viewbox")) <= 1200
        lows = [float(y) for path in page.values("path", "d") for y in re.findall(r"V([\d.]+)", path)]
        assert max(y for y in lows if y < 44) > 39  # 0.11 of 1 is near the bottom, at 44
    assert peaks[1] < 1.1 * peaks[0]
    assert sizes[1] < 2 * sizes[0] < 2_000_000


def test_a_still_scene_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert "Nothing stands out" in page_of(write_report(write_result(tmp_path / "op", still, overlay=False))).text
