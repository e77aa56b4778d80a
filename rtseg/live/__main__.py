"""One process of a feed, as the supervisor starts it."""

from __future__ import annotations

import sys

from .seat import run, sit_down


def main(argument: str) -> None:
    run(sit_down(argument))


if __name__ == "__main__":
    main(sys.argv[1])
