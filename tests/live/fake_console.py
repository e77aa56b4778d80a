"""Stands for `rtseg console` as `ConsoleProcess` starts it: serves its port, and writes down how it was called.

FAKE_CONSOLE (a path): where it writes its process and its arguments. FAKE_CONSOLE_CODE: it ends at once with this code.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

from rtseg.live.workers.lifecycle import end_with_parent


def main(feed: str, *words: str) -> None:
    end_with_parent(int(feed), signal.SIGTERM)
    with Path(os.environ["FAKE_CONSOLE"]).open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), "words": words}) + "\n")
    print("this would spoil the report of the feed")
    if "FAKE_CONSOLE_CODE" in os.environ:
        sys.exit(int(os.environ["FAKE_CONSOLE_CODE"]))
    port = int(words[words.index("--bind") + 1].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    main(*sys.argv[1:])
