"""The sklearn template: what it renders is current, passes its own tests, and its README's commands work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stageway import scaffold
from stageway.config.workspace import Workspace
from stageway.images import lock as locks
from stageway.samples import read

UV = Path(sys.executable).with_name("uv")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaffold.init("my-model", tmp_path_factory.mktemp("template") / "my-model", own_repository=True).folder


def test_its_lock_is_current(project: Path) -> None:
    workspace = Workspace.open(project, environ={})
    found = locks.read(project / "stageway.lock")
    assert found is not None
    assert found.inputs == locks.inputs(workspace), "run `python templates/relock.py`"
    assert {"scikit-learn", "numpy", "joblib", "granian"} <= found.names


def test_its_lock_names_no_index(project: Path) -> None:
    assert "://" not in (project / "stageway.lock").read_text()


def test_its_stages_have_the_gates_that_the_readme_promises(project: Path) -> None:
    spec = Workspace.open(project, environ={}).spec
    assert [gate.name for gate in spec.stages["prod"].gates] == ["metric", "contract", "latency"]
    assert spec.profile.budget == 3.0


def test_every_sample_has_an_expected_reply(project: Path) -> None:
    found = read(project / "samples")
    assert [sample.name for sample in found] == ["one-row", "three-rows"]
    assert all(sample.has_expected for sample in found)
    for sample in found:
        assert len(sample.expected) == len(sample.request_json["data"])


def test_what_training_leaves_is_not_committed(project: Path) -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "outputs/", ".stageway/", "__pycache__/"], cwd=project, capture_output=True, text=True
    ).stdout.split()
    assert ignored == ["outputs/", ".stageway/", "__pycache__/"]


def trained(project: Path, output: Path, *arguments: str) -> tuple[dict[str, float], object]:
    """Train with the interpreter of this environment, which has scikit-learn too; return metrics and one reply."""
    command = [sys.executable, "train.py", "--output", str(output), *arguments]
    subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    metrics = json.loads((output / "metrics.json").read_text())
    return metrics, json.loads((output / "samples" / "one-row.expected.json").read_text())


def test_training_makes_better_worse_and_breaking_versions(project: Path, tmp_path: Path) -> None:
    first, reply = trained(project, tmp_path / "1")
    better, _ = trained(project, tmp_path / "2", "--alpha", "0.1")
    worse, worse_reply = trained(project, tmp_path / "3", "--alpha", "0.1", "--features", "3")
    _, pairs = trained(project, tmp_path / "4", "--alpha", "0.1", "--reply", "pair")
    assert better["rmse"] < first["rmse"] < 60
    # Within the gate's own limit, so that it is the comparison with prod that says no.
    assert better["rmse"] * 1.02 < worse["rmse"] < 65
    assert [type(one) for one in (reply[0], worse_reply[0])] == [float, float]  # type: ignore[index]
    assert isinstance(pairs, list)
    assert [len(one) for one in pairs] == [2]


@pytest.mark.slow
def test_its_own_tests_pass_with_the_packages_of_the_service(project: Path) -> None:
    readme = (project / "README.md").read_text()
    command = "uv run --no-project --with-requirements stageway.lock --with pytest pytest -q"
    assert command in readme
    done = subprocess.run([UV, *command.split()[1:]], cwd=project, capture_output=True, text=True, env=clean())
    assert done.returncode == 0, done.stdout + done.stderr


def clean() -> dict[str, str]:
    """This process's environment without what pytest and coverage put there, and with our commands first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "VIRTUAL_ENV"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}
