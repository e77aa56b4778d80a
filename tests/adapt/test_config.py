"""The configuration file of a training: its values, and one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtseg.adapt.config import Material, Phase, TrainConfig, read_config
from rtseg.base.errors import ConfigError

ROOT = Path(__file__).parents[2]
WORKS = """
preset = "nano"
[[video]]
path = "tools"
sequences = ["a"]
[[validate]]
path = "tools"
sequences = ["b"]
[[phase]]
steps = 10
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "t.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(ROOT.glob("engines/training/*.toml")), ids=lambda path: path.name)
def test_shipped_trainings_read(path: Path) -> None:
    config = read_config(path)
    assert config.steps > 500
    assert config.validation
    assert all(phase.image_size <= 320 for phase in config.phases)


EARLIER = """
preset = "sam2.1-tiny"
seed = 3
[[video]]
path = "videos"
sequences = ["a", "b"]
share = 0.5
every = 2
[endoscope]
share = 0.5
[[validate]]
path = "videos"
sequences = ["c"]
[[phase]]
steps = 100
image_size = 128
length = 3
[[phase]]
steps = 50
loss = "fine-tuning"
"""


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, "89fa6c5e969be37f80bfdbc2090361573e6512bd2fde2e4cbdc2b413364b7451"),
        (120, "7916861d76c5c8ee141c26a744a801321526bceacae34608374acf4946a74d6d"),
    ],
)
def test_checkpoints_of_earlier_versions_resume(step: int, expected: str, tmp_path: Path) -> None:
    """A checkpoint holds this hash, which depends on the names of the configuration's and the preset's fields.

    These are of the version before trunks, stills and single pictures.
    """
    assert read_config(write(tmp_path, EARLIER)).fingerprint(step) == expected


def test_phases_follow_one_another_and_rates_are_lines() -> None:
    config = TrainConfig((Phase(10, lr=(1.0, 0.5)), Phase(20, lr=(0.5, 0.0))), warm_up=4)
    assert [config.at(step)[1] for step in (0, 9, 10, 29, 35)] == [0, 9, 0, 19, 25]
    assert config.at(10)[0] is config.phases[1]
    rates = [config.rate(step) for step in range(31)]
    assert rates[0] == 0.25
    assert rates[5] == 0.75
    assert rates[10] == 0.5
    assert rates[30] == 0
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_later_settings_count_where_they_are_used() -> None:
    plain = TrainConfig((Phase(10),), (Material("a"),))
    stills = TrainConfig((Phase(10),), (Material("a", stills=True),))
    singles = TrainConfig((Phase(10, singles=0.5),), (Material("a"),))
    assert len({one.fingerprint(5) for one in (plain, stills, singles)}) == 3


def test_steps_of_single_pictures_are_spread_evenly() -> None:
    phase = Phase(100, length=4, singles=0.25)
    sizes = [phase.batch_size(step, 6) for step in range(100)]
    assert sizes.count((24, 1)) == 25 and sizes.count((6, 4)) == 75
    assert [sizes.index((24, 1), 4 * k) - 4 * k for k in range(25)] == [3] * 25
    assert Phase(1, length=4).batch_size(3, 6) == (6, 4)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps = 10", "step = 10", "phase 1: unknown key 'step'; did you mean 'steps'"),
        ("steps = 10", "steps = 0", "phase 1: steps = 0; expected a whole number, 1 to 2147483647"),
        ("steps = 10", "steps = 9\nimage_size = 100", "image_size = 100; expected a multiple of 32"),
        ("steps = 10", 'steps = 9\nloss = "l2"', "loss = 'l2'; expected one of"),
        ("steps = 10", 'steps = 9\nloss = "features"', "no teacher is given; expected a [teacher]"),
        ("[[video]]", '[teacher]\npreset = "nano"\n[[video]]', "teacher: 'weights' is missing; expected a text"),
        ("[[video]]", 'teacher = "nano"\n[[video]]', "teacher: found 'nano'; expected a table of: preset, weights"),
        ("steps = 10", "steps = 9\nlr = 1e-3", "lr = 0.001; expected two learning rates"),
        ("steps = 10", "steps = 9\nlr = [nan, 1.0]", "expected two learning rates"),
        ("steps = 10", "steps = 9\nlr = [-1.0, 1.0]", "expected two learning rates"),
        ('sequences = ["a"]', 'sequences = ["a"]\nshare = 0', "nothing to train on"),
        ("[[phase]]", "[[phases]]", "unknown key 'phases'; did you mean 'phase'"),
        ("[[phase]]\nsteps = 10", "", "'phase' is missing; expected at least one"),
        ('sequences = ["b"]', "share = 2.0", "validate 1: unknown key 'share'"),
        ('[[video]]\npath = "tools"\nsequences = ["a"]', "", "nothing to train on"),
        ('sequences = ["a"]', "sequences = [1]", "expected a list of texts"),
        ("preset", "= preset", "not TOML"),
        ('sequences = ["a"]', "split = true", "tools: split = true; expected it with stills = true"),
        ("steps = 10", f"steps = {10**401}", "phase 1: steps = 1000"),
        (
            "steps = 10",
            "steps = 9\nimage_size = 1000000000",
            "image_size = 1000000000; expected a whole number, 64 to 4096",
        ),
        ('path = "tools"', 'path = "~nobody-here/x"', "expected an existing home folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert read_config(write(tmp_path, WORKS)).steps == 10
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, WORKS.replace(old, new)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "absent.toml")


def test_published_weights_keep_their_name(tmp_path: Path) -> None:
    for named, found in (
        ("sam2.1-tiny", "sam2.1-tiny"),
        ("package:nano", "package:nano"),
        ("own.safetensors", str(tmp_path / "own.safetensors")),
    ):
        assert read_config(write(tmp_path, f'weights = "{named}"\n{WORKS}')).weights == found


def test_a_file_may_be_like_another_one(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text('preset = "micro"\nseed = 3\n[endoscope]\nshare = 1\n[[phase]]\nsteps = 5\n')
    second.write_text('like = "first.toml"\nseed = 4\n[[phase]]\nsteps = 7\n[[phase]]\nsteps = 8\n')
    config = read_config(second)
    assert (config.preset, config.seed, [phase.steps for phase in config.phases]) == ("micro", 4, [7, 8])
    assert config.path == second
    second.write_text('like = "second.toml"\n')
    with pytest.raises(ConfigError, match="another training file in the same folder"):
        read_config(second)
    first.write_text('like = "second.toml"\n')
    second.write_text('like = "first.toml"\n')
    with pytest.raises(ConfigError, match="has a `like` of its own"):
        read_config(second)
