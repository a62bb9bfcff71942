"""The commands as people and CI systems run them: by exit code, by what they print, and by what answers meanwhile."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Home

pytestmark = pytest.mark.slow

FILE = """\
model: diabetes
serve: {entry-script: score.py, samples: samples}
profile: {budget: 1s}
stages:
  dev: {}
  prod:
    gates:
      - metric: {rmse: {max: 60}}
      - approval: {}
"""

SCRIPT = """\
import json
import os


def init():
    global reply
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "reply.json")) as file:
        reply = json.load(file)
    if reply["broken"]:
        raise RuntimeError("the weights do not fit")


def run(data):
    json.loads(data)["data"]
    return {"number": reply["number"]}
"""

Ended = subprocess.CompletedProcess[str]


class Project:
    """A project of one user on this machine, with the embedded registry."""

    def __init__(self, home: Home, cache: Path) -> None:
        self.home, self.root = home, home.path / "project"
        self.cache = cache
        (self.root / "samples").mkdir(parents=True)
        (self.root / "samples" / "one.json").write_text('{"data": [1.0, 2.0]}')
        (self.root / "score.py").write_text(SCRIPT)
        (self.root / "stageway.yml").write_text(FILE)

    def stageway(self, *arguments: str, **environ: str) -> Ended:
        """Run a command of the program in the project's folder."""
        return subprocess.run(
            ["stageway", *arguments],
            cwd=self.root,
            # On this user's own machine: CI=true would ask for a committed lock.
            env={**self.home.environment, "CI": "", "STAGEWAY_CACHE": str(self.cache), **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def must(self, *arguments: str, **environ: str) -> Ended:
        done = self.stageway(*arguments, **environ)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def register(self, number: float, *, rmse: float = 50.0, broken: bool = False) -> str:
        """Register a version that replies with *number*; return its NAME:VERSION."""
        file = self.root / "reply.json"
        file.write_text(json.dumps({"number": number, "broken": broken}))
        done = self.must("register", str(file), "--metrics", f"rmse={rmse}", "--json")
        model = json.loads(done.stdout)["model"]["id"]
        return f"{model['name']}:{model['version']}"

    def row(self, stage: str) -> dict[str, Any]:
        """Return what the board says of *stage*."""
        rows = json.loads(self.must("status", "--json").stdout)["board"]
        (found,) = (row for row in rows if row["stage"] == stage)
        return dict(found)

    def answers(self, stage: str) -> str:
        """Return the version that answers a request in *stage*."""
        return ask(self.row(stage)["endpoint"])[1]


def ask(endpoint: str) -> tuple[int, str]:
    """Score once; return the status and the version that replied."""
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
    try:
        connection.request("POST", "/score", b'{"data": [1.0]}', {"Content-Type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        return reply.status, reply.headers.get("x-stageway-model-version", "")
    finally:
        connection.close()


class Client(threading.Thread):
    """Asks again and again, until it is told to stop; counts what came back."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.endpoint = endpoint
        self.seen: Counter[tuple[int, str]] = Counter()
        self.problems: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.01):
            try:
                self.seen[ask(self.endpoint)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        self.join()


class Begun(Project):
    """A project whose version 1 waited for approval, and is in prod now."""

    def __init__(self, home: Home, cache: Path) -> None:
        super().__init__(home, cache)
        self.first = self.register(1.0)
        self.waited = self.stageway("run", self.first)
        self.approved = self.stageway("approve", self.first)


@pytest.fixture(scope="module")
def project(new_home: Callable[[], Home], shared_cache: Path) -> Iterator[Begun]:
    made = Begun(new_home(), shared_cache)
    yield made
    made.stageway("down")


def test_a_run_that_waits_for_a_person_is_4_and_done_when_approved(project: Begun) -> None:
    assert project.waited.returncode == 4, project.waited.stderr
    assert "waits at prod" in project.waited.stdout
    assert project.approved.returncode == 0, project.approved.stderr
    assert project.answers("prod") == project.first


def test_a_version_that_a_gate_refuses_is_1(project: Begun) -> None:
    worse = project.register(2.0, rmse=90.0)
    done = project.stageway("run", worse)
    assert done.returncode == 1, done.stderr
    assert "metric: rmse 90" in done.stdout
    assert (project.answers("dev"), project.answers("prod")) == (worse, project.first)


def test_a_stage_that_does_not_exist_is_2(project: Begun) -> None:
    done = project.stageway("deploy", project.first, "--stage", "prd")
    assert done.returncode == 2
    assert "no stage is called 'prd'; stageway.yml has: dev, prod" in done.stderr


def test_a_registry_that_is_away_is_3(project: Begun) -> None:
    # Port 9 is for discarding, and nobody listens.
    done = project.stageway("plan", project.first, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("try again: ")


def test_a_version_whose_init_raises_takes_no_answer_from_the_one_before(project: Begun) -> None:
    broken = project.register(3.0, broken=True)
    dev = project.row("dev")
    with Client(dev["endpoint"]) as in_dev, Client(project.row("prod")["endpoint"]) as in_prod:
        done = project.stageway("run", broken)
        asked = in_prod.seen.total()
        project.must("status")
    assert in_prod.seen.total() > asked, "it was asked after the run, too"
    assert done.returncode == 1, done.stderr
    assert "the weights do not fit" in done.stdout + done.stderr
    for client, label in ((in_dev, dev["label"]), (in_prod, project.first)):
        assert client.problems == []
        assert set(client.seen) == {(200, label)}
    explained = project.must("explain", broken).stdout
    assert "nothing stands in the way" not in explained
    assert f"`stageway run {broken}` after the fix" in explained


def test_a_port_of_another_program_is_told_with_its_key(project: Begun) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (project.root / "stageway.yml").write_text(FILE.replace("  prod:\n", f"  prod:\n    port: {port}\n"))
        try:
            done = project.stageway("promote", project.first, "--to", "prod")
        finally:
            (project.root / "stageway.yml").write_text(FILE)
    assert done.returncode == 2, done.stderr
    assert f"port {port} is in use by another program; give stages.prod.port another one" in done.stderr
    assert project.answers("prod") == project.first


def test_what_was_deleted_is_registered_again_as_another_version(project: Begun) -> None:
    deleted = project.register(4.0)
    project.must("model", "delete", deleted)
    assert project.stageway("plan", deleted).returncode != 0
    again = project.register(4.0)
    assert project.must("plan", again).stdout.startswith(f"{again} (not packaged yet)")


def test_step_outputs_are_of_the_stage_that_was_worked_on(project: Begun, tmp_path: Path) -> None:
    endpoints = {stage: project.row(stage)["endpoint"] for stage in ("dev", "prod")}
    for number, (task, stage) in enumerate((("deploy", "dev"), ("smoke-test", "prod"), ("smoke-test", "dev"))):
        file = tmp_path / str(number)
        project.must(task, project.first, "--stage", stage, GITHUB_OUTPUT=str(file))
        said = dict(line.split("=", 1) for line in file.read_text().splitlines())
        assert (said["stage"], said["endpoint"]) == (stage, endpoints[stage]), task
        assert f"{said['model']}:{said['version']}" == project.first


def test_a_shell_completes_commands(project: Begun) -> None:
    done = project.stageway(_STAGEWAY_COMPLETE="complete_bash", COMP_WORDS="stageway pl", COMP_CWORD="1")
    assert done.stdout.split() == ["plan", "plugins"]
