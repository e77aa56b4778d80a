"""What the tests themselves stand on: no process outlives its test, and what is shared is made once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from tests.conftest import LEFTOVERS
from tests.leftovers import NAME
from tests.shared import Shared

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
PARENT = (sys.executable, "-c", f"import subprocess; subprocess.Popen({SLEEP!r}); print('started', flush=True)")


def test_what_a_test_leaves_running_is_ended_and_named_and_nothing_else() -> None:
    foreign = {name: value for name, value in os.environ.items() if name != NAME}
    with subprocess.Popen(SLEEP) as earlier, subprocess.Popen(SLEEP, env=foreign) as other:
        before = LEFTOVERS.running() - {other.pid}
        assert LEFTOVERS.end(before) == []
        with subprocess.Popen(SLEEP) as child, subprocess.Popen(PARENT, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None and parent.stdout.readline() == b"started\n"
            parent.wait()  # its child is now nobody's
            left = LEFTOVERS.end(before, wait_s=0.0)
            assert len(left) == 2 and all("time.sleep" in line for line in left)
            assert child.wait(60) < 0
        assert earlier.poll() is None and other.poll() is None
        earlier.kill()
        other.kill()


def test_what_is_shared_is_made_once_and_whole(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "half").write_text("")
        if len(made) == 1:
            raise OSError("out of luck")
        assert not (folder / "other").exists()

    shared = Shared(tmp_path / "shared")
    threads = [threading.Thread(target=lambda: shared.folder("a", make)) for _ in range(4)]
    with suppress(OSError):
        shared.folder("a", make)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2  # one that failed, and one for all
    assert sorted(p.name for p in shared.folder("a", make).iterdir()) == ["half"]
