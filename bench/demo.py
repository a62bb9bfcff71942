"""Measure the demo: each of its phases with its seconds, and the whole.

    python bench/demo.py [--cold] [--json]

--cold starts without the cache of layers, so that the packages are installed. The goal is less than 60 s on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOAL = 60.0


def measure(folder: Path) -> dict[str, Any]:
    """Run the demo in *folder* and return its phases; its services are stopped again."""
    from stageway import demo

    started = time.perf_counter()
    try:
        told = demo.run(folder, on_terminal=False)
    finally:
        seconds = time.perf_counter() - started
        down = [sys.executable, "-m", "stageway", "down", "--workspace", str(folder)]
        subprocess.run(down, check=False, stdout=subprocess.DEVNULL)
    return {
        "seconds": seconds,
        "goal": GOAL,
        "requests": told.requests,
        "failed": told.failed,
        "phases": [{"part": one.heading, "name": one.name, "seconds": one.seconds} for one in told.phases],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if wanted.cold:
            os.environ["STAGEWAY_CACHE"] = str(Path(folder) / "cache")
        printed = os.dup(1)
        os.dup2(2, 1)  # the demo's own lines
        found = measure(Path(folder) / "stageway-demo")
        sys.stdout.flush()
        os.dup2(printed, 1)
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    part = ""
    for phase in found["phases"]:
        if phase["part"] != part:
            part = phase["part"]
            print(part)
        print(f"  {phase['name']:<18} {phase['seconds']:6.2f} s")
    print(f"{'the whole':<20} {found['seconds']:6.2f} s (goal: less than {GOAL:g})")
    print(f"requests during the update: {found['requests']}, {found['failed']} failed")


if __name__ == "__main__":
    main()
