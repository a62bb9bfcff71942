"""What CONTRIBUTING.md shows works as it is written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"```python\n# src/stageway/(\S+\.py)\n(.*?)```", TEXT, re.DOTALL))
LINES = re.findall(r'```toml\n# pyproject\.toml, \[project\.entry-points\."(\S+)"\]\n(\S+) = "(\S+)"\n```', TEXT)

USE = """
from datetime import UTC, datetime
from pathlib import Path

from stageway import plugins
from stageway.ci.inputs import inputs
from stageway.config.workspace import Workspace
from stageway.dossier import Deployment, Dossier
from stageway.gates.base import Standing, assess
from stageway.release import Model, ModelVersion

workspace = Workspace.open(Path("."), {"STAGEWAY_CACHE": "cache"})
standing = Standing(stage="dev", label="iris:1")
for hour in (8, 9):
    [judged] = assess(workspace.spec.stages["dev"].gates, {}, standing, datetime(2026, 7, 1, hour, 30, tzinfo=UTC))
    print(judged.sentence())


def model(version, framework):
    id = ModelVersion(registry="r", name="iris", version=version, created=int(version))
    return Model(id=id, digest="d", framework=framework)


class Registry:
    def versions(self, name, *, since=None):
        return [model("3", "ScikitLearn"), model("2", "Onnx"), model("1", "ScikitLearn")]


[spec] = workspace.spec.triggers
trigger = plugins.load("trigger", spec.name)(spec.options, workspace.spec.model_names, Registry())
print([event.cause for event in trigger.events(None)])

target = plugins.load("target", workspace.spec.stages["dev"].target)(workspace)
print(target.observe("nothing").revisions, "weights" in target.capabilities)

task = plugins.load("task", "announce")
print([(one.flag, one.required) for one in inputs("announce", task)])
at = Deployment(stage="dev", target="local", service="s", endpoint="http://there", release="r-1", at=0)
task(Dossier(model=model("1", None)).deployed(at), workspace, stage="dev")
print(Path("news.txt").read_text().strip())
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the guide's files as modules of their own, and its entry points."""
    folder = tmp_path / "site"
    information = folder / "guide-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: guide\nVersion: 1\n")
    points = ""
    for group, name, place in LINES:
        module, _, attribute = place.rpartition(".")[2].partition(":")
        points += f"[{group}]\n{name} = guide_{module}:{attribute}\n"
    (information / "entry_points.txt").write_text(points)
    for file, text in FILES.items():
        (folder / f"guide_{Path(file).name}").write_text(text)
    return folder


def test_every_kind_has_its_file_and_its_line() -> None:
    assert sorted(Path(file).parent.name for file in FILES) == ["gates", "targets", "tasks", "triggers"]
    assert [group for group, _, _ in LINES] == [
        "stageway.gates",
        "stageway.triggers",
        "stageway.targets",
        "stageway.tasks",
    ]
    for _, _, place in LINES:
        module, _, attribute = place.partition(":")
        text = FILES[module.removeprefix("stageway.").replace(".", "/") + ".py"]
        assert re.search(rf"^(class|def) {attribute}\b", text, re.MULTILINE)


def test_the_examples_work(site: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "stageway.yml").write_text(
        "model: iris\ntriggers: [framework: {name: ScikitLearn}]\n"
        "stages: {dev: {target: announced, gates: [office-hours: {last: 17}]}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "office-hours: it is 08:30, and nobody is there before 9:00",
        "office-hours: it is 09:30",
        "['iris:1 was registered', 'iris:3 was registered']",
        "() True",
        "[('--stage', True), ('--file', False)]",
        "dev has iris:1 at http://there",
    ]
