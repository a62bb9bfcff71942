"""The tasks with nothing in another's place: the embedded registry, real bundles, the target ``local``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from stageway import plugins, store
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import RefusedError
from stageway.registries.base import NewVersion
from stageway.tasks.base import open_registry, open_target, service_name
from stageway.tasks.deploy import deploy
from stageway.tasks.package import package
from stageway.tasks.promote import promote
from stageway.tasks.rollback import rollback
from stageway.tasks.smoke_test import smoke_test

pytestmark = pytest.mark.slow

FILE = """
model: diabetes
serve: {entry-script: score.py, samples: samples}
stages:
  dev: {}
  prod:
    gates: [contract: {}]
"""

SCRIPT = """\
import json
import os


def init():
    global reply
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "reply.json")) as file:
        reply = json.load(file)


def run(data):
    json.loads(data)["data"]
    return reply
"""

PLACER = Path(__file__).parent / "placer.py"


class Machine:
    """A project on this machine."""

    def __init__(self, root: Path) -> None:
        (root / "score.py").write_text(SCRIPT)
        (root / "samples").mkdir()
        (root / "samples" / "one.json").write_text('{"data": [1.0, 2.0]}')
        (root / "stageway.yml").write_text(FILE)
        self.workspace = Workspace.open(root)

    def version(self, reply: object) -> Dossier:
        """Register and package a version that replies so, and expects itself to."""
        folder = self.workspace.root / "model"
        folder.mkdir(exist_ok=True)
        (folder / "reply.json").write_text(json.dumps(reply))
        (self.workspace.root / "samples" / "one.expected.json").write_text(json.dumps(reply))
        wanted = NewVersion(name="diabetes", path=folder / "reply.json", samples=self.workspace.root / "samples")
        model = open_registry(self.workspace).register(wanted).model
        return package(Dossier(pipeline="diabetes", model=model), self.workspace)

    def proven(self, reply: object) -> Dossier:
        return smoke_test(deploy(self.version(reply), self.workspace, stage="dev"), self.workspace, stage="dev")

    def agrees(self, stage: str) -> str:
        """Return the version of *stage* that answers, after making sure that all who tell say the same."""
        observed = open_target(self.workspace, stage).observe(service_name(self.workspace, stage))
        assert observed.serving is not None
        label = observed.serving.label
        answered = requests.get(f"{observed.endpoint}/", timeout=10)
        registered = open_registry(self.workspace).get(f"diabetes@{stage}")
        with store.open(self.workspace) as opened:
            row = opened.stages.current(stage)
        assert row is not None
        assert answered.headers["x-stageway-model-version"] == registered.label == row.label == label
        assert answered.headers["x-stageway-release"] == row.release == observed.serving.release
        assert registered.tags[f"stageway.release.{stage}"] == row.release
        return label


@pytest.fixture
def machine(
    make_workspace: Callable[..., Workspace], shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("STAGEWAY_CACHE", str(shared_cache))
    made = Machine(make_workspace(file="model: diabetes\nstages: {dev: {}}\n").root)
    yield made
    plugins.load("target", "local")(made.workspace).down()


def test_a_version_goes_its_way_and_a_broken_one_does_not(machine: Machine) -> None:
    promote(machine.proven([203.4]), machine.workspace, to="prod")
    second = promote(machine.proven([151.2]), machine.workspace, to="prod")
    smoke_test(second, machine.workspace, stage="prod")
    assert machine.agrees("prod") == "diabetes:2"
    with pytest.raises(RefusedError, match="the reply of diabetes:3 is array of array"):
        promote(machine.proven([[1.0, 2.0]]), machine.workspace, to="prod")
    assert (machine.agrees("dev"), machine.agrees("prod")) == ("diabetes:3", "diabetes:2")
    with store.open(machine.workspace) as opened:
        opened.stages.proven("prod", opened.stages.history("prod")[1].release)
    rollback(Dossier(pipeline="diabetes"), machine.workspace, stage="prod")
    assert machine.agrees("prod") == "diabetes:1"


def test_a_script_that_returns_its_errors_is_rejected_by_the_smoke_test(machine: Machine) -> None:
    (machine.workspace.root / "score.py").write_text(
        "def init(): ...\ndef run(data):\n"
        "    try:\n        return data.no_such_method()\n    except Exception as error:\n        return str(error)\n"
    )
    dossier = deploy(machine.version([203.4]), machine.workspace, stage="dev")
    with pytest.raises(RefusedError, match="reply is error text in a 200: \"'str' object has no attribute"):
        smoke_test(dossier, machine.workspace, stage="dev")


def test_a_script_that_raises_is_rejected_with_the_last_lines_of_its_log(machine: Machine) -> None:
    (machine.workspace.root / "score.py").write_text(
        "def init(): ...\ndef run(data):\n    raise ValueError('the model is upside down')\n"
    )
    dossier = deploy(machine.version([203.4]), machine.workspace, stage="dev")
    with pytest.raises(RefusedError, match="one: HTTP 500") as caught:
        smoke_test(dossier, machine.workspace, stage="dev")
    assert "the model is upside down" in caught.value.detail


def test_killed_at_any_call_the_same_command_makes_it_right(machine: Machine) -> None:
    dossiers = [machine.proven([float(number)]) for number in range(2)]
    promote(dossiers[0], machine.workspace, to="prod")
    path = machine.workspace.root / "dossier.json"
    points = [(call, when) for call in ("apply", "set_tags", "set_alias", "record") for when in ("before", "after")]
    for number, (call, when) in enumerate(points):
        dossier = dossiers[(number + 1) % 2]
        dossier.write(path)
        command = [sys.executable, str(PLACER), str(machine.workspace.root), str(path), "promote", "prod", call, when]
        killed = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        promote(Dossier.read(path), machine.workspace, to="prod")
        assert machine.agrees("prod") == dossier.need_release().label, (call, when)


def test_two_that_promote_at_once_agree_on_one_of_both(machine: Machine) -> None:
    dossiers = [machine.proven([float(number)]) for number in range(2)]
    code = (
        "import sys; from pathlib import Path; from stageway.dossier import Dossier; "
        "from stageway.config.workspace import Workspace; from stageway.tasks.promote import promote; "
        "promote(Dossier.read(Path(sys.argv[2])), Workspace.open(Path(sys.argv[1])), to='prod')"
    )
    started = []
    for number, dossier in enumerate(dossiers):
        path = machine.workspace.root / f"{number}.json"
        dossier.write(path)
        command = [sys.executable, "-c", code, str(machine.workspace.root), str(path)]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert machine.agrees("prod") in {"diabetes:1", "diabetes:2"}
    with store.open(machine.workspace) as opened:
        assert len(opened.stages.history("prod")) == 2
