"""Recipes and stream profiles: what is read, and that each mistake costs one line that names it."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg.base.colors import PALETTE, color_of
from rtseg.base.errors import ConfigError, OutputError
from rtseg.engine.recipe import load_recipe
from rtseg.grab import open_source
from rtseg.live.object_looks import ObjectLooks, Preset
from rtseg.live.profile import Publish, load_stream
from rtseg.publish.keys.listening import check_bind

ROOT = Path(__file__).parents[2]

RECIPE = """
model = "nano"
weights = "w/x.safetensors"
image_size = 512
runtime = "torch"
precision = "bf16"
max_objects = 2
device = "cuda:1"
memory = { policy = "fifo", spatial = 7, pointers = 8 }
"""

STREAM = """
source = "clip.mp4"
engine = "e.toml"
target_fps = 30
overlay = "sync"
mask_budget_ms = 80
[publish]
bind = "tcp://127.0.0.1:6000"
topics = ["video", "status"]
[[object]]
id = 1
label = "grasper"
points = [[412, 260, 1]]
[[object]]
id = 2
mask = "m.png"
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    write(tmp_path / "e.toml", RECIPE)
    mask_hw = np.zeros((8, 8), np.uint8)
    mask_hw[2:4] = 1
    cv2.imwrite(str(tmp_path / "m.png"), mask_hw)
    return write(tmp_path / "feed.toml", STREAM)


def test_a_stream_says_everything(stream: Path) -> None:
    profile = load_stream(stream)
    assert (profile.name, profile.source) == ("feed", str(stream.parent / "clip.mp4"))
    assert profile.engine == load_recipe(stream.parent / "e.toml")
    assert (profile.target_fps, profile.overlay, profile.mask_budget_ms) == (30.0, "sync", 80.0)
    assert profile.publish == Publish("tcp://127.0.0.1:6000", ("video", "status"))
    assert profile.objects[0].points == ((412.0, 260.0, 1),)
    assert profile.objects[0].label == "grasper"
    mask_hw = profile.objects[1].mask
    assert mask_hw is not None and mask_hw.shape == (8, 8) and mask_hw.sum() == 16


def test_a_live_stream_says_everything(tmp_path: Path) -> None:
    profile = load_stream(
        write(
            tmp_path / "s.toml",
            """source = "rtsp://tower/1"
pace = "flat-out"
deinterlace = "on"
crop = [10, 20, 300, 200]
carry = "flow"
opacity = 0.5
[control]
bind = "tcp://127.0.0.1:5556"
[metrics]
bind = "127.0.0.1:9464"
[record]
folder = "recordings"
[security]
keys = "../keys"
""",
        )
    )
    assert (profile.pace, profile.deinterlace, profile.crop) == ("flat-out", "on", (10, 20, 300, 200))
    assert (profile.carry, profile.opacity) == ("flow", 0.5)
    assert (profile.control, profile.metrics) == ("tcp://127.0.0.1:5556", "127.0.0.1:9464")
    assert (profile.record, profile.keys) == (tmp_path / "recordings", tmp_path / "../keys")
    bare = load_stream(write(tmp_path / "b.toml", 'source = "rtsp://tower/1"'))
    assert (bare.control, bare.metrics, bare.record, bare.keys) == (None, None, None, None)  # nothing uninvited


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('crop = "circle"', 'crop = \'circle\'; expected "off", "auto" or a box'),
        ("crop = [10, 20, 5, 200]", "x0 < x1"),
        ('carry = "on"', "expected one of: off, flow"),
        ("opacity = 2", "a number, 0 to 1"),
        ("[control]\nport = 1", "control: unknown key 'port'"),
        ("[record]", "record: 'folder' is missing"),
        ("[security]\nkeys = 1", "security: keys = 1; expected a text"),
    ],
)
def test_a_mistake_in_a_live_stream_is_one_line(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as error:
        load_stream(write(tmp_path / "s.toml", f'source = "rtsp://tower/1"\n{line}'))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["synthetic:laparoscopy?seconds=60&seed=7", "rtsp://tower/1", "/dev/video0"])
def test_a_source_that_is_no_relative_path_stays(tmp_path: Path, source: str) -> None:
    assert load_stream(write(tmp_path / "s.toml", f'source = "{source}"')).source == source


@pytest.mark.parametrize("path", sorted(ROOT.glob("streams/*.toml")), ids=lambda path: path.name)
def test_the_profiles_of_the_repository_are_read(path: Path) -> None:
    assert load_stream(path).objects


def test_the_prompts_of_the_demo_lie_on_what_they_name() -> None:
    profile = load_stream(ROOT / "streams/demo.toml")
    frame = next(iter(open_source(profile.source)))
    truth_hw = frame.truth_hw
    assert truth_hw is not None
    for prompt in profile.objects:
        prompt.check(frame.height, frame.width, first=True)
        assert prompt.box is not None
        ys, xs = np.nonzero(truth_hw == prompt.id)
        extent = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.abs(np.subtract(prompt.box, extent)).max() < 8
        assert prompt.points and all(truth_hw[int(y), int(x)] == prompt.id for x, y, _ in prompt.points)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('source = "clip.mp4"', "", "'source' is missing; expected a text"),
        ("target_fps = 30", "targetfps = 30", "unknown key 'targetfps'; did you mean 'target_fps'?"),
        ("target_fps = 30", "target_fps = 0", "target_fps = 0; expected a number, 0.1 to 1000"),
        ('overlay = "sync"', 'overlay = "late"', "overlay = 'late'; expected one of: latest, sync"),
        (
            '"video", "status"',
            '"vido"',
            "publish: topics = ['vido']; expected a list of: video, overlay, masks",
        ),
        ("tcp://127.0.0.1:6000", "127.0.0.1", "publish: bind = '127.0.0.1'; expected an address like tcp://"),
        (
            "[[412, 260, 1]]",
            "[412, 260, 1]",
            "object 1: points = [412, 260, 1]; expected points like [[x, y",
        ),
        ("id = 2", "id = 1", "object 2: id = 1 is taken; expected one table per id"),
        ('mask = "m.png"', 'mask = "n.png"', "n.png' cannot be read as an image"),
        ('"e.toml"', '"f.toml"', "f.toml: cannot be read (No such file or directory); expected a TOML file"),
    ],
)
def test_a_mistake_in_a_stream_is_one_line(stream: Path, old: str, new: str, expected: str) -> None:
    assert old in STREAM
    write(stream, STREAM.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_stream(stream)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["2026-01-01T10:20:30.mp4", "clip:1.mp4", "rtsp:cam.mp4", "synthetic:x", "http:"])
def test_what_is_there_as_a_file_is_a_file(tmp_path: Path, name: str) -> None:
    profile = write(tmp_path / "s.toml", f'source = "{name}"')
    absent = load_stream(profile).source
    assert absent == (str(tmp_path / name) if name[0] == "2" else name)  # a name of a scheme, while it is no file
    (tmp_path / name).touch()
    assert load_stream(profile).source == str(tmp_path / name)


BINDS = {
    "tcp://127.0.0.1:65536": "expected an address like tcp://127.0.0.1:5555 or ipc:///run/rtseg/room1",
    "tcp://127.0.0.1": "expected an address like tcp://",
    "tcp://a b:1": "expected an address like tcp://",
    "tcp://127.0.0.1:-1": "expected an address like tcp://",
    "udp://127.0.0.1:1": "expected an address like tcp://",
    "ipc://@room": "no file, so no file mode keeps others out",
    "ipc://": "no file, so no file mode keeps others out",
    "tcp://*:5555": "not loopback, so anyone could watch; expected tcp://127.0.0.1:PORT, or CURVE keys",
    "tcp://0.0.0.0:5555": "not loopback, so anyone could watch; expected tcp://127.0.0.1:PORT, or CURVE keys",
}


@pytest.mark.parametrize("bind", BINDS)
def test_an_address_that_is_none_is_refused_in_the_profile_as_at_the_socket(tmp_path: Path, bind: str) -> None:
    for table in ("publish", "control"):
        path = write(tmp_path / "s.toml", f'source = "clip.mp4"\n[{table}]\nbind = "{bind}"')
        with pytest.raises(ConfigError) as caught:
            load_stream(path)
        assert str(caught.value).startswith(f"{path}: {table}: bind = '{bind}'; {BINDS[bind]}")
        with pytest.raises(OutputError) as refused:
            check_bind(bind)
        assert str(refused.value).endswith(str(caught.value).split("; ", 1)[1])


def test_addresses_that_are_right_are_taken(tmp_path: Path) -> None:
    for bind in ("tcp://127.0.0.1:0", "tcp://127.0.0.1:*", "tcp://localhost:5555", "tcp://[::1]:1", "ipc:///tmp/x"):
        path = write(tmp_path / "s.toml", f'source = "clip.mp4"\n[publish]\nbind = "{bind}"')
        assert load_stream(path).publish.bind == bind
    keys = '[security]\nkeys = "k"'
    path = write(tmp_path / "s.toml", f'source = "clip.mp4"\n[publish]\nbind = "tcp://0.0.0.0:5555"\n{keys}')
    assert load_stream(path).publish.bind == "tcp://0.0.0.0:5555"
    both = '[publish]\nbind = "tcp://127.0.0.1:5555"\n[control]\nbind = "tcp://127.0.0.1:5555"'
    with pytest.raises(ConfigError, match="control: bind = .* is that of publish"):
        load_stream(write(tmp_path / "s.toml", f'source = "clip.mp4"\n{both}'))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("target_fps = nan", "target_fps = nan; expected a number, 0.1 to 1000"),
        ("target_fps = inf", "target_fps = inf; expected a number, 0.1 to 1000"),
        ("mask_budget_ms = 0", "mask_budget_ms = 0; expected a number, 1 to 10000"),
        ("opacity = true", "opacity = True; expected a number, 0 to 1"),
        ("crop = [0, 0, 10.5, 10]", "crop = [0, 0, 10.5, 10]; expected"),
        ("crop = [0, 0, 20000, 10]", "crop = [0, 0, 20000, 10]; expected"),
        ("crop = [-1, 0, 10, 10]", "crop = [-1, 0, 10, 10]; expected"),
        ("crop = true", "crop = True; expected"),
        ('overlay = ["sync"]', "overlay = ['sync']; expected one of: latest, sync"),
        ("least_image_size = 1e9", "least_image_size = 1000000000; expected a whole number, 64 to 4096"),
        ('[publish]\ntopics = ["video", "video"]', "topics = ['video', 'video']; expected each of them once"),
        ('[publish]\ntopics = "video"', "topics = 'video'; expected a list of: video"),
        ("[[publish]]", "publish: found [{}]; expected a table of: bind, topics"),
        ("control = 5", "control: found 5; expected a table of: bind"),
        ("[object]\nid = 1", "object = {'id': 1}; expected tables headed [[object]]"),
        ("object = [1]", "object 1: found 1; expected a table of: id, label"),
        ('engine = "~nobody-here/e.toml"', "expected an existing home folder"),
        ('engine = "a\\u0000b"', "expected a text without NUL"),
        ('record = { folder = "" }', "record: folder = ''; expected a text"),
    ],
)
def test_numbers_and_tables_that_are_none_are_one_line(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_stream(write(tmp_path / "s.toml", f'source = "clip.mp4"\n{line}'))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_more_objects_than_the_engine_follows_are_refused_before_anything_starts(tmp_path: Path) -> None:
    def profile(count: int) -> Path:
        objects = "".join(f"[[object]]\nid = {n}\npoints = [[4, 5, 1]]\n" for n in range(1, count + 1))
        return write(tmp_path / "s.toml", f'source = "clip.mp4"\n{objects}')

    with pytest.raises(ConfigError, match="5 objects; the engine's recipe says max_objects = 4; raise it"):
        load_stream(profile(5))
    assert len(load_stream(profile(4)).objects) == 4


def test_presets_and_kept_prompts_of_a_stream(tmp_path: Path) -> None:
    text = 'source = "rtsp://tower/1"\n[control]\nbind = "tcp://127.0.0.1:5556"\nkeep = "kept"\n'
    text += '[[preset]]\nlabel = "grasper"\n[[preset]]\nlabel = "gallbladder"\ncolor = [0, 128, 255]\n'
    profile = load_stream(write(tmp_path / "s.toml", text))
    assert profile.keep == tmp_path / "kept"
    assert profile.presets == (Preset("grasper", PALETTE[0]), Preset("gallbladder", (0, 128, 255)))
    looks = ObjectLooks(profile.presets)
    looks.choose(3, (9, 9, 9), None)
    drawn = looks.of({1: "gallbladder", 2: "hook", 3: "gallbladder", 4: None})
    colors = [drawn.color(i) for i in (1, 2, 3, 4)]
    assert colors == [(0, 128, 255), color_of(2), (9, 9, 9), color_of(4)] and not drawn.hidden
    for wrong, expected in [
        ('[[preset]]\nlabel = "hook"\n[[preset]]\nlabel = "hook"', "preset 2: label = 'hook' is taken"),
        ('[[preset]]\nlabel = ""', "preset 1: label = ''"),
        ('[[preset]]\nlabel = "x"\ncolor = [1, 2, 256]', "expected a colour [red, green, blue], each 0 to 255"),
        ('[[preset]]\nlabel = "x"\ncolour = [1, 2, 3]', "did you mean 'color'"),
        ('[control]\nkeep = "x"', "control: 'bind' is missing"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(expected)) as error:
            load_stream(write(tmp_path / "s.toml", f'source = "rtsp://tower/1"\n{wrong}'))
        assert "\n" not in str(error.value)
