"""`rtseg ctl` and `rtseg keys` by the command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg.base.errors import OutputError, PromptError, RtsegError
from rtseg.base.rle import encode_rle
from rtseg.base.types import Frame
from rtseg.cli import make_parser
from rtseg.live.control import Add, ControlServer, Correct, Look, Preview, Rename, Set, TakeSnapshot, snapshot_result

MASK_HW = np.zeros((20, 30), bool)
MASK_HW[3:9, 4:12] = True


def _run(*words: str) -> dict:
    args = make_parser().parse_args(words)
    return args.run(args)


@pytest.fixture
def feed():
    """`ask` sends the words of `rtseg ctl` to a server that answers everything, and returns (result, request)."""
    with ControlServer("tcp://127.0.0.1:*") as server:

        def ask(*words: str):
            done = []
            stop = threading.Event()

            def answer() -> None:
                while not stop.is_set():
                    server.socket.poll(10)
                    for ticket, request in server.receive():
                        done.append(request)
                        shot = isinstance(request, TakeSnapshot)
                        picture = Frame(np.full((4, 6, 3), 7, np.uint8), 12)
                        seen = {"rle": encode_rle(MASK_HW), "height": 20, "width": 30, "score": 0.9, "iou": 0.8}
                        about = {"id": 3, "seq": 9, "warnings": []} if isinstance(request, Preview) else {}
                        answer = about | seen if about else {"state": "live"}
                        server.reply(ticket, snapshot_result(picture, None) if shot else answer)

            thread = threading.Thread(target=answer)
            thread.start()
            try:
                result = _run("ctl", words[0], "--address", server.endpoint, *words[1:])
            finally:
                stop.set()
                thread.join()
            return result, done[0]

        yield ask


def test_a_prompt_in_words_arrives(feed, tmp_path):
    words = ("3", "--point", "412,260", "--background", "1,2.5", "--box", "1,2,30,40", "--label", "hook", "--seq", "9")
    result, request = feed("add", *words)
    assert result == {"done": "add", "state": "live"}
    assert type(request) is Add
    assert request.prompt.points == ((412.0, 260.0, 1), (1.0, 2.5, 0))
    assert (request.prompt.box, request.prompt.label, request.seq) == ((1, 2, 30, 40), "hook", 9)
    mask_hw = np.zeros((20, 30), np.uint8)
    mask_hw[3:9, 4:12] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask_hw)
    _, request = feed("correct", "3", "--mask", str(tmp_path / "mask.png"))
    assert type(request) is Correct
    assert np.array_equal(request.prompt.mask, mask_hw > 0)


def test_a_preview_is_told_and_written(feed, tmp_path):
    result, request = feed("preview", "3", "--point", "5,5", "--seq", "9", "--out", str(tmp_path / "mask.png"))
    assert type(request) is Preview and request.seq == 9
    assert result == {"done": "preview", "id": 3, "seq": 9, "area": 48, "score": 0.9, "iou": 0.8}
    _, request = feed("add", "3", "--mask", str(tmp_path / "mask.png"), "--value", "3")  # what is shown can be given
    assert np.array_equal(request.prompt.mask, MASK_HW)


def test_other_requests_arrive(feed, tmp_path):
    assert feed("set", "--opacity", "0.5")[1] == Set(0.5)
    assert feed("rename", "3", "clip")[1] == Rename(3, "clip")
    assert feed("look", "3", "--color", "0,128,255", "--hide")[1] == Look(3, (0, 128, 255), True)
    assert feed("look", "3", "--show")[1] == Look(3, hidden=False)
    for name in ("undo", "redo", "reset", "pause", "resume", "get", "status", "shutdown"):
        result, request = feed(name)
        assert result == {"done": name, "state": "live"}
        assert type(request).__name__.lower() == name
    result, request = feed("snapshot", str(tmp_path / "out.png"))
    assert (result["seq"], request) == (12, TakeSnapshot())
    assert (cv2.imread(str(tmp_path / "out.png")) == 7).all()
    with pytest.raises(OutputError, match="cannot be written"):
        feed("snapshot", str(tmp_path / "nowhere" / "out.png"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "3", "--point", "4"), "two numbers"), (("add", "3", "--point", "nan,1"), "two numbers"),
        (("add", "3", "--box", "1,2,3"), "four numbers"), (("add", "x"), "invalid int"),
        (("statsu",), "invalid choice"),
        (("status", "--timeout", "0"), "above 0"), (("add", "3"), "neither points"),
        (("add", "3", "--mask", "nowhere.png"), "cannot be read"), (("set",), "nothing to set"),
        (("remove", "900"), "id = 900"),
    ],
)  # fmt: skip
def test_words_that_make_no_sense_cost_one_line(words, said, capsys):
    with pytest.raises((RtsegError, argparse.ArgumentError), match=said) as caught:
        _run("ctl", *words)
    assert "\n" not in str(caught.value)


def test_a_refused_prompt_is_a_prompt_error(feed):
    with pytest.raises(PromptError, match="x0 < x1"):
        feed("add", "3", "--box", "9,9,1,1")


def test_keys_in_words(tmp_path: Path):
    folder = ("--folder", str(tmp_path / "keys"))
    assert _run("keys", "new", "server", *folder)["name"] == "server"
    _run("keys", "new", "anna", *folder)
    assert _run("keys", "allow", "anna", *folder)["allowed"] == ["anna"]
    assert set(_run("keys", "list", *folder)["allowed"]) == {"anna"}
    with pytest.raises(RtsegError, match="is there already"):
        _run("keys", "new", "anna", *folder)


def test_the_words_are_there_without_zeromq():
    code = "import sys, rtseg.cli as c; c.make_parser(); assert not {'zmq', 'msgpack'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_object_of_a_mask_image_is_picked(feed, tmp_path):
    ids_hw = np.zeros((20, 30), np.uint8)
    ids_hw[3:9, 4:12], ids_hw[12:15, 4:12] = 1, 2
    cv2.imwrite(str(tmp_path / "ids.png"), ids_hw)
    _, request = feed("add", "3", "--mask", str(tmp_path / "ids.png"), "--value", "2")
    assert np.array_equal(request.prompt.mask, ids_hw == 2)
    cv2.imwrite(str(tmp_path / "ids.png"), np.dstack([ids_hw * 0, ids_hw * 0, (ids_hw == 1) * np.uint8(200)]))
    _, request = feed("add", "3", "--mask", str(tmp_path / "ids.png"), "--value", "200,0,0")
    assert np.array_equal(request.prompt.mask, ids_hw == 1)
    with pytest.raises(PromptError, match="^prompt for object 3: mask = .* has the colours"):
        _run("ctl", "add", "3", "--mask", str(tmp_path / "ids.png"))
    with pytest.raises(PromptError, match="a value without a mask"):
        _run("ctl", "add", "3", "--point", "1,2", "--value", "2")
    for wrong in ("x", "1,2", "256,0,0", "1.5", "-1"):
        with pytest.raises(RtsegError, match="--value: .*expected the number of an object"):
            _run("ctl", "add", "3", "--mask", "x.png", f"--value={wrong}")
