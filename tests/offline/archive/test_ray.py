"""An archive on a real local Ray cluster: workers killed at random, an address, and shares of machines."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path
from unittest.mock import patch

import pytest

from rtseg.base.errors import ConfigError
from rtseg.offline.archive.on_ray import connect, import_ray, share_of
from rtseg.offline.archive.run import Settings, archive
from tests.leftovers import NAME
from tests.shared import random_recipe

from .media import department, masks, on_threads

COUNT = 5


def ray_workers() -> list[int]:
    """The processes of workers that this test started."""
    word = f"{NAME}={os.environ[NAME]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                ours = any(text.startswith(word) for text in (entry / "environ").read_bytes().split(b"\0"))
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if ours and command.startswith(b"ray::Worker"):
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_workers_that_are_killed_change_no_mask(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    recipe = random_recipe(tmp_path, runtime="torch")
    (tmp_path / "ward").mkdir()
    manifest = str(department(tmp_path / "ward", COUNT))
    quiet, harmed = tmp_path / "quiet", tmp_path / "harmed"
    archive(manifest, str(quiet), recipe, Settings(scratch=tmp_path), cluster=on_threads)

    draw, over, killed = random.Random(1), threading.Event(), set[int]()

    def kill() -> None:
        """Each worker that is seen at work with a video, up to three."""
        while not over.wait(0.02) and len(killed) < 3:
            victims = [pid for pid in ray_workers() if list(harmed.glob("*.partial*")) and pid not in killed]
            if victims and not over.wait(draw.random() / 4):
                killed.add(victims[0])
                os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        settings = Settings(scratch=tmp_path, workers=2, gpus_per_worker=0, retries=9)
        result = archive(manifest, str(harmed), recipe, settings)
    finally:
        over.set()
        killer.join()
    assert result["ok"] and result["done"] + result["skipped"] == COUNT
    assert killed and result["attempts_failed"] >= 1, "nobody was killed at work: the test shows nothing"
    assert "its worker died" in (harmed / "archive.jsonl").read_text()
    assert masks(harmed) == masks(quiet)
    name = next(iter(masks(harmed)))
    (harmed / name).write_bytes(b"another")
    assert masks(harmed) != masks(quiet)  # else the comparison could not fail


def test_without_ray_one_line_says_what_to_do() -> None:
    with patch("rtseg.offline.archive.on_ray.import_module", side_effect=ImportError("No module named 'ray'")):
        with pytest.raises(ConfigError, match=r"rtseg archive needs Ray.*pip install 'rtseg\[ray\]'; rtseg segment"):
            import_ray()


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(ConfigError, match=r"--ray 127.0.0.1:1: cannot be joined") as caught:
        connect("127.0.0.1:1")
    assert "\n" not in str(caught.value)


GPU, CPU = {"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}


@pytest.mark.parametrize(("nodes", "gpus", "workers", "expected"), [
    ([GPU, GPU, CPU], None, None, (4, 1.0, 8)),  # a worker for each GPU
    ([GPU], 0.5, None, (2, 0.5, 8)),
    ([GPU], 1.0, 3, (4, 1.0, 3)),
    ([CPU, CPU], None, None, (8, 0.0, 2)),  # one for each machine
    ([CPU, {"CPU": 4.0}], None, 6, (2, 0.0, 6)),
    ([{"CPU": 2.0}], None, 2, (1, 0.0, 2)),
    ([GPU], 0.0, None, (16, 0.0, 1)),
])  # fmt: skip
def test_what_each_worker_gets(
    nodes: list[dict[str, float]], gpus: float | None, workers: int | None, expected: tuple[int, float, int]
) -> None:
    share = share_of(nodes, gpus, workers)
    assert (share.cpus, share.gpus, share.room) == expected


def test_a_cluster_without_what_workers_need_is_refused() -> None:
    with pytest.raises(ConfigError, match="the cluster has no GPU"):
        share_of([CPU], 0.5, None)
    with pytest.raises(ConfigError, match="no CPU to work on"):
        share_of([{"GPU": 0.0}], None, None)
