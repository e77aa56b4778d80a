"""How workers begin: each imports what its own work needs, because a restarted one must be back at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, json, sys
import rtseg.live.__main__
importlib.import_module(f"rtseg.live.workers.{sys.argv[1]}")
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("role", ["grab", "publish", "record", "segment"])
def test_only_segment_imports_the_engine(role: str) -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM, role], check=True, capture_output=True, text=True).stdout
    modules = set(json.loads(output))
    assert ("rtseg.engine" in modules) == ("rtseg.track" in modules) == (role == "segment")
    assert not {"torch", "rtseg.live.supervisor", "rtseg.live.control"} & modules
