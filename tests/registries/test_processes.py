"""Several processes at one embedded registry, and processes that are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stageway.config.workspace import Workspace
from stageway.registries.base import NewVersion
from stageway.registries.mlflow import MlflowRegistry

REGISTERING = Path(__file__).parent / "registering.py"


def start(*arguments: Path | str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "STAGEWAY"))}
    return subprocess.Popen(
        [sys.executable, str(REGISTERING), *map(str, arguments)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate(timeout=240)
    assert "Traceback" not in errors, errors
    return process.returncode, output.strip()


@pytest.mark.slow
def test_two_first_processes_make_one_database_and_one_version(tmp_path: Path, model_file: Path) -> None:
    """Both find no database and the same bytes; nothing but the answer is printed."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}}\n")
    both = [start(tmp_path / "project", model_file) for _ in range(2)]
    ends = sorted(finish(process) for process in both)
    assert ends == [(0, "diabetes:1 known"), (0, "diabetes:1 new")]
    registry = MlflowRegistry(Workspace.open(tmp_path / "project", {}))
    assert [one.label for one in registry.versions("diabetes")] == ["diabetes:1"]


@pytest.mark.slow
def test_a_killed_registration_leaves_a_version_or_nothing(workspace: Workspace, tmp_path: Path) -> None:
    """Kill at each call of the client and within the copy, then register again: one version, no file too many."""
    registry = MlflowRegistry(workspace)
    registry.ping()
    points = [f"copy:{number}" for number in (1, 2)]
    points += [f"{when}:{number}" for number in range(2, 16) for when in ("call", "after")]
    reached = 0
    children = start()
    assert children.stdin is not None
    assert children.stdout is not None
    for number, point in enumerate(points):
        file = tmp_path / f"model-{number}.bin"
        file.write_bytes(os.urandom(2**20 + 1))
        before = {one.label for one in registry.versions("diabetes")}
        print(workspace.root, file, point, file=children.stdin, flush=True)
        said = children.stdout.readline().split()
        if said[0].startswith("diabetes:"):  # it ended before the point was reached
            said = children.stdout.readline().split()
        reached += int(said[0]) == -signal.SIGKILL
        left = {one.label for one in registry.versions("diabetes")} - before
        for label in left:
            registry.fetch(registry.get(label), tmp_path / f"fetched-{number}")
        done = registry.register(NewVersion(name="diabetes", path=file, metrics={"rmse": 1.0}))
        assert done.new == (not left), point
        assert len({one.label for one in registry.versions("diabetes")} - before) == 1, point
        assert done.model.metrics == {"rmse": 1.0}
    assert finish(children) == (0, "")
    kept = [path.name for path in (workspace.state / "artifacts").rglob("*.bin")]
    assert sorted(kept) == sorted({f"model-{number}.bin" for number in range(len(points))})
    assert list(workspace.state.rglob(".incoming-*")) == []
    assert reached >= 20, "the points are those of another program"


def test_registering_prints_nothing_and_connects_to_nobody(workspace: Workspace, model_file: Path) -> None:
    """MLflow's notices and its telemetry are off: every connect of the process is refused, and none is tried."""
    code = (
        "import socket, sys\n"
        "def no(*arguments):\n"
        "    print('connects to', arguments[1], file=sys.stderr)\n"
        "    raise OSError('refused by the test')\n"
        "socket.socket.connect = socket.socket.connect_ex = no\n"
        f"sys.argv = ['x', {str(workspace.root)!r}, {str(model_file)!r}]\n"
        f"import runpy; runpy.run_path({str(REGISTERING)!r}, run_name='__main__')\n"
        "import threading; print([one.name for one in threading.enumerate()])\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST", "CI"))}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=240)
    assert done.stderr == ""
    assert re.fullmatch(r"diabetes:1 new\n\['MainThread'.*\]\n", done.stdout), done.stdout
    assert "elemetry" not in done.stdout
