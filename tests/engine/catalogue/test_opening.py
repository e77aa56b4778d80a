"""Engines by the name of published weights: where they are not here, fetching them, and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

import rtseg
from rtseg.base.errors import ConfigError, WeightsError
from rtseg.base.files import file_sha256
from rtseg.cli import main
from rtseg.engine.catalogue import fetch
from rtseg.engine.recipe import SHIPPED
from rtseg.live.profile import load_stream
from tests.engine.catalogue.conftest import WHOLE, Server, Shelf

CLIP = "synthetic:laparoscopy?width=160&height=120&fps=25&seed=7&seconds=0.08"


@pytest.fixture
def published(server: Server, shelf: Shelf) -> Shelf:
    """The shipped weights of micro, as if they had been published on the server."""
    path = SHIPPED / "micro.safetensors"
    server.content = path.read_bytes()
    entry = shelf.add("w", server.address("ranges.safetensors"), bytes=path.stat().st_size, sha256=file_sha256(path))
    shelf.entries["w"] = replace(entry, preset="micro", image_size=64, memory={"policy": "fifo"})
    return shelf


def test_weights_that_are_not_here_say_how_to_fetch_them(published: Shelf) -> None:
    line = "weights 'w' are not on this machine yet; run: rtseg weights get w"
    with pytest.raises(WeightsError) as caught:
        rtseg.open_engine("w")
    assert str(caught.value) == line
    with pytest.raises(WeightsError, match="no published weights of this name; did you mean 'w'?"):
        rtseg.open_engine(weights="ww")


def test_they_are_fetched_if_that_is_asked_for(published: Shelf, server: Server) -> None:
    engine = rtseg.open_engine("w", fetch=True, runtime="torch")
    assert (engine.recipe.model, engine.recipe.memory.policy, engine.image_size) == ("micro", "fifo", 64)
    asked = len(server.asked)
    assert rtseg.open_engine("w", runtime="torch").weights_hash == engine.weights_hash
    assert rtseg.open_engine(weights="w", model="micro", image_size=64, runtime="torch").weights_hash
    assert len(server.asked) == asked


def test_a_file_that_was_changed_is_refused(published: Shelf) -> None:
    path = fetch("w")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError) as caught:
        rtseg.open_engine("w", runtime="torch")
    assert str(caught.value).startswith(f"{path}: not the file that was fetched (SHA-256 ")
    assert str(caught.value).endswith("run: rtseg weights get w --force")


def test_a_recording_is_segmented_with_them(
    published: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "p.json"
    prompts.write_text(json.dumps([{"frame": 0, "id": 1, "box": [40, 30, 120, 90]}]))
    words = ["segment", CLIP, "--prompts", str(prompts), "--engine", "w", "--runtime", "torch", "--json"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    assert "are not on this machine yet; run: rtseg weights get w" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "a"), "--fetch"]) == 0
    named = main([*words, "--out", str(tmp_path / "b"), "--weights", "package:micro"])
    assert named == 0
    for name in ("00000.png", "00001.png"):
        assert_array_equal(*((tmp_path / out / "masks" / name).read_bytes() for out in "ab"))


def test_a_stream_profile_may_name_them(published: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f'source = "{CLIP}"\nengine = "w"\n')
    assert load_stream(path).engine.weights == "w"
    path.write_text(f'source = "{CLIP}"\nengine = "nano-cpu"\n')
    line = "s.toml: engine = 'nano-cpu': no such recipe file, and no published weights of this name; expected one of: w"
    with pytest.raises(ConfigError, match=line):
        load_stream(path)
    (tmp_path / "w").write_text('model = "micro"')
    path.write_text(f'source = "{CLIP}"\nengine = "w"\n')
    assert load_stream(path).engine.model == "micro"


def test_the_command_line(published: Shelf, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.add("strict", server.address("x"), licence="strict")
    published.add("other", server.address("404"))
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    assert "strict *" in shown and str(published.folder) in shown

    assert main(["weights", "get", "w", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "ok": True,
        "name": "w",
        "path": f"{published.folder}/w.safetensors",
        "bytes": len(server.content),
    }
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["weights"]}
    assert rows["w"]["path"] == result["path"] and rows["strict"]["path"] is None
    assert rows["strict"]["accept_licence"] and not rows["w"]["accept_licence"]

    assert main(["weights", "check", result["path"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["network"], found["published"], found["sha256"]) == ("micro", "w", published.entries["w"].sha256)

    assert main(["weights", "check", "w", "--json"]) == 0  # by its name
    assert json.loads(capsys.readouterr().out) == found
    assert main(["weights", "check", "other"]) == 2
    assert capsys.readouterr().err.endswith("are not on this machine yet; run: rtseg weights get other\n")

    assert main(["weights", "get", "other"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("rtseg weights: other: not fetched: 127.0.0.1:") and len(errors) == 2
    (tmp_path / "mine.pt").write_bytes(WHOLE)
    assert main(["weights", "get", "other", "--from", str(tmp_path / "mine.pt")]) == 0
    assert main(["weights", "get", "other", "--from", "x", "--force"]) == 2


def test_a_process_without_a_terminal_says_how_far_it_is(
    published: Shelf, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "get", "w"]) == 0
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"rtseg weights: w: fetching {len(server.content) / 1e6:.1f} MB from 127.0.0.1:{server.port}"
    assert 9 <= len(lines) <= 10 and all(line.startswith("w: ") and line.endswith(" MB") for line in lines)
