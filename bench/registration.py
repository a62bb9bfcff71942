"""Measure registering one large file, beside one sha256 pass over it and MLflow's own upload of it.

    python bench/registration.py [--size 1000] [--runs 3] [--folder DIR] [--json]

--size is in MB. The three take turns; each run's ratios are to the sha256 pass of the same turn (the limit, since what
is registered is hashed once), and the medians are shown. The goal is a ratio of at least 0.5. MLflow's upload hashes
nothing. All is read from the page cache and written without fsync, by all three alike. A plain write of the same bytes
stands beside them. Before each of them as many pages are written and given back as it needs: a virtual machine gets
memory from its host at the first touch, which would be measured in place of the copying (0.35 GB/s against 5 here).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GOAL = 0.5


def seconds(work: Callable[[], object], touch: Callable[[], None] | None = None) -> float:
    if touch is not None:
        touch()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write(path: Path, megabytes: int) -> None:
    """Write random bytes, another file each time, and let the disk come to rest."""
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(10**6))
    os.sync()


def touch_memory(path: Path, megabytes: int) -> None:
    """Let the page cache grow by *megabytes* and give the pages back to the kernel."""
    piece = os.urandom(10**6)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(piece)
    path.unlink()


def measure(folder: Path, megabytes: int, runs: int) -> dict[str, Any]:
    """Return the seconds of each pass, by turn."""
    from stageway.config.workspace import Workspace
    from stageway.registries.base import NewVersion
    from stageway.registries.mlflow import MlflowRegistry

    (folder / "stageway.yml").write_text("model: large\nstages: {dev: {}}\n")
    workspace = Workspace.open(folder, {})
    registry = MlflowRegistry(workspace)
    registry.ping()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.registry_uri, registry_uri=workspace.registry_uri)
    experiment = client.create_experiment("upload", artifact_location=(folder / "upload").as_uri())
    path = folder / "model.bin"
    turns: list[dict[str, float]] = []

    def touch() -> None:
        touch_memory(folder / "touched", 3 * megabytes // 2)

    for _ in range(runs):
        write(path, megabytes)
        run_id = client.create_run(experiment).info.run_id

        def hash_it() -> None:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

        turn = {"sha256": seconds(hash_it)}
        turn["register"] = seconds(lambda: registry.register(NewVersion(name="large", path=path)), touch)
        os.sync()
        content = path.read_bytes()
        turn["write"] = seconds(lambda content=content: (folder / "plain").write_bytes(content), touch)  # type: ignore[misc]
        del content
        (folder / "plain").unlink()
        turn["mlflow"] = seconds(lambda run_id=run_id: client.log_artifact(run_id, str(path)), touch)  # type: ignore[misc]
        os.sync()
        turns.append(turn)
        for version in registry.versions("large"):
            registry.delete(version.label)
        shutil.rmtree(folder / "upload")
    rate = {name: statistics.median(megabytes / 1000 / turn[name] for turn in turns) for name in turns[0]}
    ratio = {name: statistics.median(turn["sha256"] / turn[name] for turn in turns) for name in turns[0]}
    return {"megabytes": megabytes, "gb_per_s": rate, "ratio": ratio, "goal": GOAL, "turns": turns}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the files are written; default: a new one")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(Path(folder), given.size, given.runs)
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{given.size} MB, median of {given.runs}      GB/s   of one sha256 pass")
        for name in ("sha256", "write", "register", "mlflow"):
            print(f"  {name:<24} {found['gb_per_s'][name]:6.2f}   {found['ratio'][name]:.2f}")
    return 0 if found["ratio"]["register"] >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
