from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest

from rtseg.base.errors import OutputError
from rtseg.publish.event_log import GENESIS, EventLog, decode_line, lines_backwards


def _chain(data: bytes) -> list[dict]:
    """The events of a log; `ValueError` with the first line that does not fit."""
    events, head = [], GENESIS
    for line in data.splitlines(keepends=True):
        event, head = decode_line(line, head)
        events.append(event)
    return events


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for seq in range(5):
        log.add("frame", seq=seq, age=np.float64(1.5), what="café")
    log.close()
    log.close()
    return path


def test_lines_are_json_and_hash_what_the_docstring_says(path):
    first, second, *_ = path.read_bytes().splitlines()
    body = b'{"age":1.5,"event":"frame","seq":0,"what":"caf\\u00e9"}'
    digest = hashlib.sha256(b"0" * 64 + body).hexdigest()
    assert json.loads(first) == {"age": 1.5, "event": "frame", "seq": 0, "what": "café", "hash": digest}
    assert json.loads(second)["hash"] == hashlib.sha256(digest.encode() + body.replace(b":0", b":1")).hexdigest()
    assert [event["seq"] for event in _chain(path.read_bytes())] == [0, 1, 2, 3, 4]
    assert path.stat().st_mode & 0o777 == 0o600


def _edits(lines: list[bytes]) -> dict[str, list[bytes]]:
    return {
        "a number": [lines[0], lines[1].replace(b'"seq":1', b'"seq":7'), *lines[2:]],
        "a space": [lines[0], lines[1].replace(b'"seq":1', b'"seq": 1'), *lines[2:]],
        "removed": [lines[0], *lines[2:]],
        "the first removed": lines[1:],
        "swapped": [lines[0], lines[2], lines[1], *lines[3:]],
        "twice": [lines[0], lines[1], *lines[1:]],
        "inserted": [lines[0], b'{"event":"frame","seq":9,"hash":"' + b"0" * 64 + b'"}\n', *lines[1:]],
        "junk": [lines[0], b"\xff\0\n", *lines[1:]],
        "an empty line": [lines[0], b"\n", *lines[1:]],
        "hash": [lines[0].replace(lines[0][-67:-66], b"g"), *lines[1:]],
    }


def test_an_edit_shows(path):
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(_chain(b"".join(lines))) == 5  # the control
    for name, edited in _edits(lines).items():
        with pytest.raises(ValueError):
            _chain(b"".join(edited))
            pytest.fail(name)
    assert len(_chain(b"".join(lines[:-1]))) == 4  # the end of a chain is not held by the chain


@pytest.mark.parametrize("torn", [b"", b'{"seq":12,"ev', b"\0" * 5000, "last"])
def test_going_on_keeps_the_chain_and_what_was_torn(path, torn):
    lines = path.read_bytes().splitlines(keepends=True)
    if torn == "last":  # a whole line, but for its newline
        torn = lines.pop()[:-1]
    path.write_bytes(b"".join(lines) + torn)
    log = EventLog.resume(path)
    log.add("frame", seq=5)
    log.close()
    events = _chain(path.read_bytes())
    assert path.read_bytes().startswith(b"".join(lines))
    recovered = [event for event in events if event["event"] == "recovered"]
    assert [(e["bytes"], e["sha256"]) for e in recovered] == [(len(torn), hashlib.sha256(torn).hexdigest())] * bool(
        torn
    )
    assert events[-1] == {"event": "frame", "seq": 5}


def test_going_on_after_nothing_or_one_line(path):
    first = path.read_bytes().splitlines(keepends=True)[0]
    for data, count in ((b"", 1), (b'{"torn', 1), (first, 2)):
        path.write_bytes(data)
        log = EventLog.resume(path)
        log.add("frame", seq=5)
        log.close()
        assert len(_chain(path.read_bytes())) == count


def test_a_damaged_log_is_not_gone_on_with(path):
    data = path.read_bytes()
    for damaged in (data.replace(b'"seq":4', b'"seq":5'), data + b"\0\0\0\n", data[: data.rfind(b'{"age"')] + b"{}\n"):
        path.write_bytes(damaged)
        with pytest.raises(OutputError, match=r"the last line: .*; begin another$"):
            EventLog.resume(path)
        assert path.read_bytes() == damaged


def test_misuse_is_one_line(path, tmp_path):
    for wrong in (path, tmp_path / "missing" / "events.jsonl", tmp_path):
        with pytest.raises(OutputError, match="cannot be written"):
            EventLog(wrong)
    log = EventLog.resume(path)
    with pytest.raises(OutputError, match="another recorder writes it"):
        EventLog.resume(path)
    before = path.read_bytes()
    for value in (math.nan, object(), b"bytes"):
        with pytest.raises(OutputError, match="frame: cannot be logged"):
            log.add("frame", value=value)
    assert path.read_bytes() == before
    log.add("frame", seq=5)
    log.close()
    assert len(_chain(path.read_bytes())) == 6


def test_lines_backwards():
    assert list(lines_backwards(b"")) == list(lines_backwards(b"torn")) == []
    assert list(lines_backwards(b"a\nb\n\nc")) == [b"\n", b"b\n", b"a\n"]
