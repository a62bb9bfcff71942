"""The sklearn template: what it renders is current, passes its own tests, and its README's commands work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stageway import catalog, scaffold
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


@pytest.mark.slow
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


def uses(project: Path, file: str) -> list[tuple[str, dict[str, str]]]:
    """Return the Stageway tasks that a CI file calls, with what it gives them."""
    content = yaml.safe_load((project / file).read_text())
    steps = content["jobs"]["deploy"]["steps"] if "jobs" in content else content["steps"]
    found = []
    for step in steps:
        called = re.search(
            r"(?:/|^)tasks/([a-z-]+)(?:@v1|/step.yml@stageway)$", step.get("uses", step.get("template", ""))
        )
        if called:
            found.append((called[1], step.get("with", step.get("parameters", {}))))
    return found


@pytest.mark.parametrize("file", [".github/workflows/deploy.yml", "azure-pipelines.yml"])
def test_its_ci_files_take_a_version_the_whole_way(project: Path, file: str) -> None:
    called = uses(project, file)
    assert [(task, given.get("stage") or given.get("to")) for task, given in called] == [
        ("register", None),
        ("profile", None),
        ("package", None),
        ("deploy", "dev"),
        ("smoke-test", "dev"),
        ("promote", "prod"),
        ("smoke-test", "prod"),
    ]
    for task, given in called:
        known, required = taken(task, file)
        assert required <= set(given) <= known, task


def taken(task: str, file: str) -> tuple[set[str], set[str]]:
    """Return what a task's action or step takes, and what of it must be given."""
    folder = catalog.root() / "tasks" / task
    if file.startswith(".github"):
        action = yaml.safe_load((folder / "action.yml").read_text())["inputs"]
        return set(action), {name for name, one in action.items() if one["required"]}
    step = yaml.safe_load((folder / "step.yml").read_text())["parameters"]
    return {one["name"] for one in step}, {one["name"] for one in step if "default" not in one}


def test_its_github_workflow_is_valid(project: Path) -> None:
    check = [str(UV.with_name("check-jsonschema")), "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*check, ".github/workflows/deploy.yml"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_its_ci_files_use_the_copy_that_was_asked_for(tmp_path: Path) -> None:
    made = scaffold.init("m", tmp_path / "m", answers={"owner": "acme"}, own_repository=True)
    assert "uses: acme/stageway/tasks/deploy@v1" in (made.folder / ".github/workflows/deploy.yml").read_text()
    assert "name: acme/stageway\n" in (made.folder / "azure-pipelines.yml").read_text()
    assert "${{ secrets.MLFLOW_TRACKING_URI }}" in (made.folder / ".github/workflows/deploy.yml").read_text()


@pytest.mark.slow
def test_what_its_readme_says_works(tmp_path: Path) -> None:
    project = scaffold.init("my-model", tmp_path / "my-model", own_repository=True).folder
    environment = {**clean(), "STAGEWAY_CACHE": os.environ.get("STAGEWAY_CACHE", str(tmp_path / "cache"))}
    said: list[str] = []
    try:
        for block in re.findall(r"```sh\n(.*?)```", (project / "README.md").read_text(), re.DOTALL):
            if "$ENDPOINT" in block:
                environment["ENDPOINT"] = board(project, environment)["prod"]["endpoint"]
            # As a reader does: line by line, and the first one that fails is where he stops.
            done = subprocess.run(
                ["bash", "-e", "-c", block], cwd=project, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
            if "stageway run my-model:3" in block:
                held = {stage: row["label"] for stage, row in board(project, environment).items()}
                assert held == {"dev": "my-model:3", "prod": "my-model:2"}
    finally:
        subprocess.run(["stageway", "down"], cwd=project, env=environment, capture_output=True)
    together = "\n".join(said)
    assert "[182.0040" in together, "the reply to curl"
    assert re.search(r"metric: rmse \S+ is worse than my-model:2 in prod", together), "what explain says"
    assert "12 passed" in together, "the project's own tests"
    tree = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True).stdout
    assert tree == "", "following the README leaves a clean work tree"


def board(project: Path, environment: dict[str, str]) -> dict[str, dict[str, str]]:
    done = subprocess.run(
        ["stageway", "status", "--json"], cwd=project, env=environment, capture_output=True, text=True
    )
    return {row["stage"]: row for row in json.loads(done.stdout)["board"]}


def clean() -> dict[str, str]:
    """This process's environment without what pytest and coverage put there, and with our commands first."""
    other = ("PYTEST", "VIRTUAL_ENV", "MLFLOW", "STAGEWAY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(other)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}
