"""The command line: what each verb calls, what it prints where, and which code it exits with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rtseg import __version__
from rtseg.base.errors import PromptError
from rtseg.base.verb import Verb
from rtseg.cli import main
from rtseg.live.profile import StreamProfile
from rtseg.offline import Reading

VERBS = ("demo", "live", "segment", "view", "build", "weights", "bench", "train", "doctor")


class Room(types.ModuleType):
    """Stands for a room: remembers how it was called; returns or raises what it is told to."""

    def __init__(self, name: str, *functions: str, answer: Any = None) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answer = {"frames": {"in": 3}} if answer is None else answer
        for function in functions:
            setattr(self, function, lambda *args, _name=function, **kwargs: self._call(_name, args, kwargs))

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls.append((name, args, kwargs))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """The live room and the demo, replaced by one that answers for both."""
    fake = Room("room", "demo", "run_live")
    for name in ("rtseg.live", "rtseg.live.demo"):
        monkeypatch.setitem(sys.modules, name, fake)
    return fake


def test_help_shows_an_example_for_each_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert f"example: rtseg {verb}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(verb in text for verb in VERBS)
    assert "not a medical device" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"rtseg {__version__}\n"


@pytest.mark.parametrize("words", [[], ["segmnt"], ["segment", "clip.mp4"], ["live", "a.toml", "--seconds", "soon"]])
def test_wrong_words_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: rtseg" in capsys.readouterr().err
    assert main([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(
    "words",
    [
        ["live", "a.toml", "--seconds", "nan"],
        ["view", "--seconds", "-1"],
        ["view", "--frames", "0"],
        ["train", "t.toml", "--data", "d", "--out", "o", "--threads", "0"],
        ["eval", "d", "--tolerance", "nan"],
        ["eval", "d", "--slices", "1,b"],
    ],
)
def test_numbers_that_make_no_sense_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "expected a" in capsys.readouterr().err


def test_help_loads_no_heavy_library() -> None:
    code = "import sys, rtseg.cli as cli; cli.make_parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "argparse" in loaded
    assert not {"torch", "numpy", "cv2", "av", "zmq", "rich"} & set(loaded)


def test_every_verb_of_a_package_is_collected() -> None:
    from rtseg import cli

    root = Path(cli.__file__).parent
    names = [".".join(file.with_suffix("").relative_to(root).parts) for file in root.rglob("commands.py")]
    modules = [import_module(f"rtseg.{name}") for name in names]
    listed = {verb.name for module in modules for verb in vars(module).values() if isinstance(verb, Verb)}
    assert len(modules) >= 6 and sorted(listed) == sorted(verb.name for verb in cli.VERBS)
    assert all(verb.help and verb.example.startswith(f"rtseg {verb.name}") for verb in cli.VERBS)


def test_a_worker_of_a_feed_does_not_load_the_command_line() -> None:
    code = "import sys, rtseg.live.__main__; sys.exit('rtseg.cli' in sys.modules or 'argparse' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_live_reads_the_profile_and_passes_the_rest(tmp_path: Path, room: Room) -> None:
    path = tmp_path / "feed.toml"
    path.write_text('source = "synthetic:laparoscopy"')
    assert main(["live", str(path), "--seconds", "2"]) == 0
    ((name, (profile, seconds), _),) = room.calls
    assert (name, seconds) == ("run_live", 2.0)
    assert isinstance(profile, StreamProfile) and profile.name == "feed"


def test_json_is_the_last_line_and_people_read_stderr(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    room.answer = {"frames": {"in": 3}, "stages_ms": {"grab": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}, "out": "a[b]c"}
    assert main(["demo", "--json", "--out", "x"]) == 0
    assert room.calls[0][2] == {"out": Path("x"), "stay": False}
    printed = capsys.readouterr()
    assert json.loads(printed.out) == room.answer
    assert "grab" in printed.err and "a[b]c" in printed.err
    assert main(["demo"]) == 0
    printed = capsys.readouterr()
    assert "grab" in printed.out and printed.err == ""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PromptError("p.json: entry 2: bad"), 2, "rtseg demo: p.json: entry 2: bad\n"),
        (KeyboardInterrupt(), 130, "rtseg demo: interrupted\n"),
        (ZeroDivisionError("two\nlines"), 1, "rtseg demo: ZeroDivisionError: two lines (a bug, or this machine; "),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    room: Room, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    room.answer = error
    assert main(["demo", "--json"]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(text)
    assert printed.err.count("\n") == 1
    result = json.loads(printed.out)
    assert (result["ok"], result["kind"]) == (False, type(error).__name__)
    assert main(["demo"]) == code
    assert capsys.readouterr().out == ""


def test_debug_shows_the_traceback(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.answer = ZeroDivisionError("x")
    monkeypatch.setenv("RTSEG_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["demo"])


def test_segment_overrides_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Room("rtseg.offline.run", "segment")
    monkeypatch.setitem(sys.modules, "rtseg.offline.run", fake)
    prompts = tmp_path / "p.json"
    prompts.write_text('[{"frame": 0, "id": 1, "points": [[1, 2, 1]]}]')
    words = ["segment", "c.mp4", "--prompts", str(prompts), "--out", "o", "--policy", "fifo", "--weights", "w.pt"]
    assert main(words) == 0
    ((_, (source, given, out, recipe), options),) = fake.calls
    assert (source, out, list(given)) == ("c.mp4", Path("o"), [0])
    assert (recipe.memory.policy, recipe.weights, recipe.precision) == ("fifo", "w.pt", "auto")
    assert options["force"] is False
    assert options["reading"] == Reading() and options["frames"] is None
    assert main([*words[:-4], "--policy", "lru"]) == 2
    fake.calls.clear()
    more = ["--join", "--fps", "12.5", "--deinterlace", "auto", "--damaged", "stop", "--bits", "12", "--frames"]
    assert main(["segment", "d.mp4", *words[1:], *more, "--max-objects", "9"]) == 0
    ((_, (source, _, _, recipe), options),) = fake.calls
    assert (source, recipe.max_objects) == (["d.mp4", "c.mp4"], 9)
    assert options["reading"] == Reading(12.5, "auto", "stop", 12) and options["frames"] == "jpg"


@pytest.mark.parametrize(
    "words",
    [
        ["--fps", "0"],
        ["--fps", "nan"],
        ["--fps", "inf"],
        ["--bits", "17"],
        ["--bits", "0"],
        ["--max-objects", "0"],
        ["--max-objects", "256"],
        ["--max-objects", "9" * 5000],
        ["--frames", "gif"],
        ["--damaged", "ignore"],
        ["--deinterlace", "maybe"],
    ],
)
def test_words_of_segment_that_make_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "c.mp4", "--prompts", "p.json", "--out", "o", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_view_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Room("rtseg.publish.viewer", "view")
    monkeypatch.setitem(sys.modules, "rtseg.publish.viewer", fake)
    assert main(["view", "tcp://127.0.0.1:6000", "--headless", "--save", "d", "--seconds", "1"]) == 0
    ((_, (address,), options),) = fake.calls
    assert address == "tcp://127.0.0.1:6000"
    wanted = {"headless": True, "save": Path("d"), "seconds": 1.0, "frames": None, "keys": None, "server_key": None}
    assert options == wanted


def test_train_reads_its_file_and_passes_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Room("rtseg.adapt.train", "train")
    monkeypatch.setitem(sys.modules, "rtseg.adapt.train", fake)
    file = tmp_path / "t.toml"
    file.write_text("endoscope = {share = 1.0}\n[[phase]]\nsteps = 3\n")
    assert main(["train", str(file), "--data", "d", "--out", "o", "--threads", "1"]) == 0
    ((_, (config, data, out, device, threads), _),) = fake.calls
    assert (config.steps, data, out, device, threads) == (3, Path("d"), Path("o"), "auto", 1)
    assert main(["train", str(tmp_path / "absent.toml"), "--data", "d", "--out", "o"]) == 2


def test_eval_checks_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--protocol", "vide"], "did you mean 'video'"),
        (["--prompt", "boxes"], "did you mean 'box'"),
        (["--level", "6", "--corruption", "smoke"], "level = 6; expected 1 to 5"),
        ([], "no such folder"),
    ):
        assert main(["eval", str(tmp_path / "absent"), *words]) == 2
        error = capsys.readouterr().err
        assert says in error and len(error.splitlines()) == 1


def test_eval_follows_a_synthetic_set_and_compares_with_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "synthetic:laparoscopy?seed=10000-10001&seconds=0.2&width=160&height=120"
    engine = tmp_path / "small.toml"
    engine.write_text('model = "micro"\nweights = "package:micro"\nimage_size = 128\nruntime = "torch"\n')
    assert main(["eval", data, "--engine", str(engine), "--out", str(tmp_path / "a"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["summary"]["overall"]["iou"]["value"] > 0.3
    assert (tmp_path / "a" / "eval.json").is_file()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_doctor_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("rtseg.build.doctor.SHIPPED", tmp_path)
    assert main(["doctor", "--json"]) == 1
    printed = capsys.readouterr()
    listed = json.loads(printed.out)["findings"]
    findings = {finding["name"]: finding for finding in listed}
    assert findings["torch"]["ok"] is True
    assert findings["weights"]["ok"] is False and str(tmp_path) in findings["weights"]["text"]
    assert len(printed.err.splitlines()) == len(listed)
    (tmp_path / "nano.safetensors").write_bytes(b"x")
    assert main(["doctor", "--json"]) == 0
    assert "sha256 2d711642b726" in capsys.readouterr().out


def test_doctor_knows_a_package_that_goes_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorRT does, where only `tensorrt_cu13` is installed; and one that does not tell its version."""
    import importlib.metadata

    from rtseg.build.doctor import finding

    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    monkeypatch.setattr(finding, "has", lambda name: True)
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="11.5"))
    assert finding.package("tensorrt", "plans").text == "11.5, for plans"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found = finding.package("tensorrt", "plans")
    assert found.ok and found.text == "of unknown version, for plans"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["segment", "no.mp4", "--prompts", "{good}", "--out", "{out}"], "no.mp4"),
        (["segment", "no.mp4", "--prompts", "no.json", "--out", "{out}"], "no.json: cannot be read"),
        (["live", "no.toml"], "no.toml: cannot be read"),
        (["segment", "no.mp4", "--prompts", "{good}", "--out", "{out}", "--engine", "no.toml"], "no.toml"),
        (["view", "nonsense", "--headless", "--seconds", "1"], "nonsense"),
    ],
)
def test_a_users_mistake_is_one_line_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    good = tmp_path / "p.json"
    good.write_text('[{"frame": 0, "id": 1, "points": [[1, 2, 1]]}]')
    assert main([word.format(good=good, out=tmp_path / "out") for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.startswith(f"rtseg {words[0]}: ")
    assert expected in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGHUP, signal.SIGINT))]
)
def test_a_segment_that_is_stopped_keeps_what_is_whole(tmp_path: Path, number: int) -> None:
    """As a service manager does it: the process is told to end in the middle of its work."""
    (tmp_path / "e.toml").write_text('model = "micro"\nweights = "package:micro"\nimage_size = 64\nruntime = "torch"\n')
    (tmp_path / "p.json").write_text('[{"frame": 0, "id": 1, "points": [[60, 60, 1]]}]')
    source = "synthetic:laparoscopy?width=160&height=120&seconds=600"
    words = ["segment", source, "--prompts", "p.json", "--out", "out", "--engine", "e.toml", "--json"]
    code = "import sys; from rtseg.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out.partial-*/masks/00003.png")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    whole = len(list((tmp_path / "out/masks").iterdir()))
    assert whole > 3 and err == f"rtseg segment: interrupted; {whole} frames are whole, and lie in out\n"
    assert json.loads(out.splitlines()[-1])["ok"] is False
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert (run["complete"], run["ended"], run["frames"]["shown"]) == (False, "interrupted", whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.toml", "out", "p.json"]


def test_home_folders_are_found_in_every_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.json").write_text('[{"frame": 0, "id": 1, "points": [[1, 2, 1]]}]')
    (tmp_path / "e.toml").write_text('model = "micro"\nweights = "package:micro"\n')
    for words, missing in (
        (["segment", "~/no.mp4", "--prompts", "~/p.json", "--engine=~/e.toml", "--out=~/o"], "no.mp4"),
        (["segment", "~/no.mp4", "--prompts=~/q.json", "--out=~/o"], "q.json"),
        (["segment", "~/no.mp4", "--prompts=~/p.json", "--engine=~/f.toml", "--out=~/o"], "f.toml"),
        (["live", "~/no.toml"], "no.toml"),
    ):
        assert main(words) == 2
        printed = capsys.readouterr().err
        assert str(tmp_path / missing) in printed and "~" not in printed
    assert main(["live", "~nobody-here/s.toml"]) == 2
    assert "expected an existing home folder" in capsys.readouterr().err


def test_stdin_is_not_both_the_recording_and_the_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "-", "--prompts", "-", "--out", str(tmp_path / "o")]) == 2
    assert "stdin is the recording already; expected a file, or a pipe" in capsys.readouterr().err


def test_the_package_is_a_command_too() -> None:
    said = subprocess.run([sys.executable, "-m", "rtseg", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("rtseg ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    words = [sys.executable, "-m", "rtseg", "doctor"]
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert said.returncode == 2 and said.stderr.count("\n") == 1 and "cannot be printed (No space left" in said.stderr
