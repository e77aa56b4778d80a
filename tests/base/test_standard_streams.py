"""A verb that is started without stdin, stdout or stderr does its work all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import SOURCE, WORKER

ROOT = Path(__file__).parents[2]
ALL = "<&- >&- 2>&-"
EACH = [pytest.param(one, marks=pytest.mark.slow) for one in ("<&-", ">&-", "2>&-")]
LIVE = f"""
import json, sys
from pathlib import Path
from rtseg import cli
import rtseg.live as live
play = live.run_live
live.run_live = lambda profile, seconds: play(profile, seconds, worker={WORKER!r})
code = cli.main(["live", sys.argv[1], "--seconds", "0.4"])
Path(sys.argv[2]).write_text(json.dumps(code))
sys.exit(code)
"""


def started(closed: str, *command: str) -> int:
    """The exit code of a command that a shell starts with these descriptors closed."""
    return subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *command], cwd=ROOT, timeout=120, check=False).returncode


@pytest.mark.parametrize("closed", ["<&-", ALL, *EACH[1:]])
def test_a_feed_plays_without_them(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSEG_TEST_FAULTS", json.dumps({"fake": True}))
    profile, code = tmp_path / "room.toml", tmp_path / "code"
    profile.write_text(f'source = "{SOURCE.format(60)}"\n[publish]\nbind = "tcp://127.0.0.1:*"\n')
    assert started(closed, sys.executable, "-c", LIVE, str(profile), str(code)) == 0
    assert json.loads(code.read_text()) == 0


@pytest.mark.parametrize("closed", [ALL, *EACH])
@pytest.mark.parametrize(
    "verb", [["doctor", "--help"], ["verify", "nowhere"], ["eval", "--nonsense"], ["keys", "list"]]
)
def test_every_verb_ends_as_it_does_with_them(closed: str, verb: list[str], tmp_path: Path) -> None:
    """Help, a failure, a mistake and a result."""
    command = [sys.executable, "-c", "import sys; from rtseg.cli import main; sys.exit(main())", *verb]
    if verb[0] == "keys":
        command += ["--folder", str(tmp_path)]
    with_them = subprocess.run(command, cwd=ROOT, timeout=120, check=False, capture_output=True).returncode
    assert started(closed, *command) == with_them


def test_what_is_there_stays_as_it_is() -> None:
    program = "import os, sys; from rtseg.base.standard_streams import open_standard_streams as f; "
    program += "a = [os.fstat(n).st_ino for n in range(3)]; "
    program += "f(); sys.exit(a != [os.fstat(n).st_ino for n in range(3)])"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
