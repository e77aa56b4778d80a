"""An archive from its manifest to its results, with workers in threads: equal masks, failures, going on, clouds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rtseg.base.errors import ConfigError, IncompleteError
from rtseg.base.prompt_files import load_prompts
from rtseg.engine.recipe import Recipe
from rtseg.offline import segment
from rtseg.offline.archive.jobs import Cluster, Event
from rtseg.offline.archive.journal import Journal
from rtseg.offline.archive.manifest import ManifestError
from rtseg.offline.archive.run import Settings, archive
from rtseg.offline.archive.worker import Setup
from tests.shared import random_recipe

from .media import FRAMES, Threads, department, masks, on_threads, video

COUNT = 3


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return random_recipe(tmp_path_factory.mktemp("weights"), runtime="torch")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with prompts and a manifest."""
    folder = tmp_path_factory.mktemp("ward")
    department(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def expected(ward: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The masks of each video when it is segmented by itself."""
    out = tmp_path_factory.mktemp("alone")
    for number in range(COUNT):
        segment(ward / f"v{number}.avi", load_prompts(ward / "p.json"), out / f"v{number}", recipe)
    return masks(out)


def no_cluster(settings: Settings, setup: Setup, depth: int) -> AbstractContextManager[tuple[Cluster, int]]:
    raise AssertionError("a cluster was started")


def run(manifest: Path | str, out: Path | str, recipe: Recipe, scratch: Path, **keywords: Any) -> dict[str, Any]:
    keywords = {"cluster": on_threads, **keywords}
    settings = Settings(scratch=scratch, workers=2, force=keywords.pop("force", False))
    return archive(str(manifest), str(out), recipe, settings, **keywords)


def test_masks_are_those_of_each_video_by_itself_and_a_second_run_has_nothing_to_do(
    ward: Path, recipe: Recipe, expected: dict[str, bytes], tmp_path: Path
) -> None:
    result = run(ward / "videos.csv", tmp_path / "out", recipe, tmp_path)
    assert (result["ok"], result["done"], result["frames"]) == (True, COUNT, COUNT * FRAMES)
    assert masks(tmp_path / "out") == expected
    assert len(expected) == COUNT * (FRAMES + 1)
    assert len({text for name, text in expected.items() if name.endswith("masks.json")}) == COUNT  # no two are alike
    again = run(ward / "videos.csv", tmp_path / "out", recipe, tmp_path, cluster=no_cluster)
    assert (again["ok"], again["done"], again["skipped"]) == (True, 0, COUNT)
    with pytest.raises(AssertionError, match="a cluster was started"):
        run(ward / "videos.csv", tmp_path / "out", recipe, tmp_path, cluster=no_cluster, force=True)


def test_one_failure_stops_nothing_and_is_listed_and_tried_again_by_the_next_run(
    ward: Path, recipe: Recipe, tmp_path: Path
) -> None:
    for number in range(2):
        video(tmp_path / f"v{number}.avi", number)
    good = (tmp_path / "v0.avi").read_bytes()
    (tmp_path / "v0.avi").write_bytes(b"no video")
    (tmp_path / "p.json").write_bytes((ward / "p.json").read_bytes())
    (tmp_path / "m.csv").write_text("source,prompts\nv0.avi,p.json\nv1.avi,p.json\n")
    result = run(tmp_path / "m.csv", tmp_path / "out", recipe, tmp_path)
    assert (result["ok"], result["done"], result["failed"]) == (False, 1, 1)
    (failure,) = result["failures"]
    assert (failure["line"], failure["attempts"]) == (2, 1)  # the input is wrong: not tried again
    assert "v0.avi" in failure["causes"][0]
    assert result["why"] == "1 of 2 videos failed; the others are done"
    entries = [json.loads(line) for line in (tmp_path / "out/archive.jsonl").read_text().splitlines()]
    assert {entry["out"]: entry["state"] for entry in entries} == {"v0": "failed", "v1": "done"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["archive.jsonl", "index.html", "v1"]

    (tmp_path / "v0.avi").write_bytes(good)
    mended = run(tmp_path / "m.csv", tmp_path / "out", recipe, tmp_path)
    assert (mended["ok"], mended["done"], mended["skipped"]) == (True, 1, 1)


def test_a_result_of_another_configuration_is_not_mixed_in(ward: Path, recipe: Recipe, tmp_path: Path) -> None:
    for name in ("v0.avi", "p.json"):
        (tmp_path / name).write_bytes((ward / name).read_bytes())
    (tmp_path / "m.csv").write_text("source,prompts\nv0.avi,p.json\n")
    run(tmp_path / "m.csv", tmp_path / "out", recipe, tmp_path)
    before = masks(tmp_path / "out")
    (tmp_path / "p.json").write_text('[{"frame": 0, "id": 1, "box": [0, 0, 20, 20]}]')
    refused = run(tmp_path / "m.csv", tmp_path / "out", recipe, tmp_path)
    assert refused["failed"] == 1 and "--force" in refused["failures"][0]["causes"][0]
    assert masks(tmp_path / "out") == before
    assert run(tmp_path / "m.csv", tmp_path / "out", recipe, tmp_path, force=True)["done"] == 1
    assert masks(tmp_path / "out") != before


def test_a_manifest_with_a_mistake_starts_nothing(ward: Path, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"source,prompts\n{ward}/v0.avi,{ward}/p.json\nnone.avi,{ward}/p.json\n")
    with pytest.raises(ManifestError, match="nothing was started"):
        run(tmp_path / "m.csv", tmp_path / "out", recipe, tmp_path, cluster=no_cluster)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(
    ward: Path, recipe: Recipe, expected: dict[str, bytes], tmp_path: Path
) -> None:
    class Interrupted(Threads):
        def wait(self, timeout_s: float) -> list[Event]:
            if (tmp_path / "out/archive.jsonl").stat().st_size:
                raise KeyboardInterrupt
            return super().wait(timeout_s)

    @contextmanager
    def interrupted(settings: Settings, setup: Setup, depth: int) -> Iterator[tuple[Cluster, int]]:
        cluster = Interrupted(setup)
        try:
            yield cluster, 1
        finally:
            cluster.close()

    with pytest.raises(IncompleteError, match=r"interrupted: 1 of 3 videos are done; run again to go on") as caught:
        run(ward / "videos.csv", tmp_path / "out", recipe, tmp_path, cluster=interrupted)
    assert (caught.value.code, caught.value.report["done"]) == (130, 1)
    with (tmp_path / "out/archive.jsonl").open("a") as journal:
        journal.write('{"at": "2026-')  # as of a run that was killed while it wrote
    result = run(ward / "videos.csv", tmp_path / "out", recipe, tmp_path)
    assert result["ok"] and result["done"] + result["skipped"] == COUNT
    assert masks(tmp_path / "out") == expected


def test_two_runs_of_one_archive_are_refused(tmp_path: Path) -> None:
    with Journal(str(tmp_path / "out")):
        with pytest.raises(ConfigError, match="another run is at work on this archive"):
            Journal(str(tmp_path / "out")).__enter__()
    with Journal(str(tmp_path / "out")):
        pass


def test_from_a_cloud_to_a_cloud(ward: Path, recipe: Recipe, expected: dict[str, bytes], tmp_path: Path) -> None:
    cloud = fsspec.filesystem("memory")
    for path in ward.iterdir():
        cloud.put_file(str(path), f"/ward/{path.name}")
    first = run("memory://ward/videos.csv", "memory://results/one", recipe, tmp_path / "scratch")
    assert (first["ok"], first["done"]) == (True, COUNT)
    cloud.get("/results/one/", f"{tmp_path}/got/", recursive=True)
    assert masks(tmp_path / "got") == expected
    document = json.loads(cloud.cat("/results/one/v0/run.json"))
    assert document["complete"]
    for name in ("sources", "results"):
        assert list((tmp_path / "scratch" / name).iterdir()) == []  # nothing stays on the machine
    second = run("memory://ward/videos.csv", "memory://results/one", recipe, tmp_path, cluster=no_cluster)
    assert second["skipped"] == COUNT

    cloud.rm("/results/one/archive.jsonl")  # as when the driver was killed before it wrote the journal
    cloud.rm("/results/one/v2/run.json")  # as when a worker was killed while it uploaded
    third = run("memory://ward/videos.csv", "memory://results/one", recipe, tmp_path / "scratch")
    assert (third["done"], third["skipped"]) == (1, 2)

    cloud.pipe("/ward/p.json", b'[{"frame": 0, "id": 1, "box": [0, 0, 20, 20]}]')
    refused = run("memory://ward/videos.csv", "memory://results/one", recipe, tmp_path / "scratch")
    assert refused["failed"] == COUNT and "of another configuration" in refused["failures"][0]["causes"][0]
    forced = run("memory://ward/videos.csv", "memory://results/one", recipe, tmp_path / "scratch", force=True)
    assert forced["done"] == COUNT


def test_progress_is_shown(ward: Path, recipe: Recipe, tmp_path: Path) -> None:
    lines: list[str] = []
    run(ward / "videos.csv", tmp_path / "out", recipe, tmp_path, show=lines.append)
    assert lines[-1].startswith("3 of 3 videos (100.0%); 0 at work, ")
