"""What was opened before a fork is refused in the child, in one line; what is opened there works; so does spawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, multiprocessing, os, sys, threading
import numpy as np
import torch
import rtseg
from rtseg.live.control import Client
from rtseg.base.errors import RtsegError

torch.set_num_threads(2)
RUNTIME, HOW = sys.argv[1:]
IMAGE_HWC = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


def opened():
    return rtseg.open_engine(model="micro", weights="package:micro", image_size=320, runtime=RUNTIME)


def used(tracker):
    tracker.prompt(1, points=[(60, 60, 1)])
    tracker.step(IMAGE_HWC)
    return round(tracker.step(IMAGE_HWC).score(1), 3)


def in_fork(act):
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            found = act()
        except RtsegError as e:
            found = f"{type(e).__name__}: {e}"
        os.write(writes, json.dumps(found).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as answer:
        found = json.loads(answer.read())
    os.waitpid(child, 0)
    return found


def work(queue):
    queue.put(used(rtseg.Tracker(opened())))


if __name__ == "__main__":
    tracker = rtseg.Tracker(opened())
    first = used(tracker)
    found = {}
    if HOW == "fork":
        found["inherited"] = in_fork(lambda: used(tracker))
        found["a verb"] = in_fork(lambda: tracker.engine.encode_image(IMAGE_HWC))
        held, done = threading.Event(), threading.Event()

        def hold():  # somebody is in the middle of a step
            with tracker._lock:
                held.set()
                done.wait()

        threading.Thread(target=hold).start()
        held.wait()
        found["locked"] = in_fork(lambda: used(tracker))
        done.set()
        found["opened there"] = in_fork(lambda: used(rtseg.Tracker(opened())))
        with rtseg.Subscriber("tcp://127.0.0.1:5599") as subscriber, Client("tcp://127.0.0.1:5598") as client:
            found["a subscriber"] = in_fork(lambda: (subscriber.get(timeout=20), subscriber.close()))
            found["a client"] = in_fork(lambda: (client.status(), client.close()))
        frames = iter(rtseg.open_source("synthetic:laparoscopy?seconds=1&width=160&height=120"))
        next(frames)
        found["a source"] = in_fork(lambda: next(frames).seq)
        source = rtseg.open_source("synthetic:laparoscopy?seconds=1&width=160&height=120")
        found["a source from its begin"] = in_fork(lambda: next(iter(source)).seq)
    elif HOW == "spawn":
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=work, args=(queue,))
        process.start()
        found["spawned"] = queue.get(timeout=60)
        process.join()
    elif HOW == "loader":
        class Clips(torch.utils.data.Dataset):
            def __init__(self, tracker):
                self.tracker = tracker

            def __len__(self):
                return 1

            def __getitem__(self, i):
                try:
                    return str(used(self.tracker or rtseg.Tracker(opened())))
                except RtsegError as e:
                    return f"{type(e).__name__}: {e}"

        for name, given in (("inherited", tracker), ("opened there", None)):
            loader = torch.utils.data.DataLoader(Clips(given), num_workers=1, multiprocessing_context="fork")
            found[name] = next(iter(loader))[0]
    print(json.dumps({"first": first, "again": used(rtseg.Tracker(tracker.engine)), **found}))
"""


def run(folder: Path, runtime: str, how: str) -> dict[str, Any]:
    (folder / "forks.py").write_text(SCRIPT)
    words = [sys.executable, "-W", "ignore", "forks.py", runtime, how]
    done = subprocess.run(words, cwd=folder, capture_output=True, check=False, text=True, timeout=60)  # a hang fails
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("runtime", ["torch", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cpu", "onnx"))])
def test_what_a_fork_left_without_its_threads_says_so(tmp_path: Path, runtime: str) -> None:
    found = run(tmp_path, runtime, "fork")
    assert found["first"] == found["again"] == found["opened there"] > 0  # the parent goes on; so does the child
    line = "EngineError: this engine was opened before the process was forked, and its threads are the parent's; open"
    for name in ("inherited", "a verb", "locked"):
        assert found[name].startswith(line)
        assert "multiprocessing.get_context('spawn')" in found[name]
    assert found["a subscriber"].startswith("OutputError: this subscriber was made before the process was forked")
    assert found["a client"].startswith("OutputError: this client was made before the process was forked")
    assert "the process was forked while it was read" in found["a source"]
    assert found["a source from its begin"] == 0


@pytest.mark.slow
def test_a_loader_of_data_in_forked_workers(tmp_path: Path) -> None:
    found = run(tmp_path, "cpu", "loader")
    assert found["inherited"].startswith("EngineError: this engine was opened before the process was forked")
    assert found["opened there"] == str(found["first"])


@pytest.mark.slow
def test_processes_that_are_spawned_work(tmp_path: Path) -> None:
    found = run(tmp_path, "cpu", "spawn")
    assert found["spawned"] == found["first"]
