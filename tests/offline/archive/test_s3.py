"""An archive on an S3 server: sources fetched, results uploaded, and what breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rtseg.offline.archive import places
from rtseg.offline.archive.run import Settings, archive
from tests.shared import random_recipe

from .media import department, masks, on_threads

moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server in this process."""
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    cloud = s3fs.S3FileSystem()
    cloud.mkdir("ward")
    yield "s3://ward"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_from_s3_to_s3_with_uploads_that_break_off(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = random_recipe(tmp_path, runtime="torch")
    (tmp_path / "ward").mkdir()
    department(tmp_path / "ward", 3)
    local = Settings(scratch=tmp_path / "scratch")
    archive(str(tmp_path / "ward/videos.csv"), str(tmp_path / "quiet"), recipe, local, cluster=on_threads)

    cloud = s3fs.S3FileSystem()
    cloud.put(f"{tmp_path}/ward/", "ward/in/", recursive=True)
    broken: list[str] = []
    whole = s3fs.S3FileSystem._put_file

    async def put_file(self: object, lpath: str, rpath: str, *args: object, **keywords: object) -> None:
        if rpath.endswith("v1/run.json") and not broken:
            broken.append(rpath)
            raise ConnectionResetError("connection reset")
        await whole(self, lpath, rpath, *args, **keywords)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", put_file)
    s3fs.S3FileSystem.clear_instance_cache()
    result = archive(f"{bucket}/in/videos.csv", f"{bucket}/out", recipe, local, cluster=on_threads)
    assert (result["ok"], result["done"], result["attempts_failed"]) == (True, 3, 1) and broken
    cloud.invalidate_cache()
    cloud.get("ward/out/", f"{tmp_path}/got/", recursive=True)
    assert masks(tmp_path / "got") == masks(tmp_path / "quiet")
    assert places.read(f"{bucket}/out/archive.jsonl")
    again = archive(f"{bucket}/in/videos.csv", f"{bucket}/out", recipe, local, cluster=on_threads)
    assert again["skipped"] == 3
