"""One process watches and works; a signal drains it, a kill leaves it to be continued."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from stageway.pipelines.process import alive
from stageway.pipelines.runner import Runner
from stageway.watch.up import up

if TYPE_CHECKING:
    from tests.conftest import Project


@pytest.fixture(autouse=True)
def durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of these tests outlives them long enough."""
    monkeypatch.setenv("STAGEWAY_STATE_IS_DURABLE", "1")


def test_a_registered_version_arrives_in_the_last_stage(project: Project) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=up, args=(project.workspace,), kwargs={"interval": 0.05, "stop": stop})
    with project.open() as opened:
        thread.start()
        project.until(lambda: opened.marks.all("diabetes"))
        assert alive(opened)
        project.register("diabetes:1")
        project.until(lambda: project.running("prod") == "diabetes:1")
        project.until(lambda: [row.ended for row in opened.ledger.all()] == ["promoted"])
        stop.set()
        thread.join()
        assert not alive(opened), "it said good-bye"


def test_sigterm_finishes_the_task_and_leaves_the_rest(project: Project) -> None:
    project.script(profile={"until": "go"})
    process = project.process(up=0.05)
    with project.open() as opened:
        project.until(lambda: opened.marks.all("diabetes"))
        project.register("diabetes:1")
        project.until(lambda: "profile diabetes:1" in project.effects())
        process.send_signal(signal.SIGTERM)
        (project.root / "go").touch()
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert project.effects() == ["register diabetes:1", "profile diabetes:1"]
        (run,) = opened.runs.all()
        assert (run.state, run.reason) == ("queued", "the worker was asked to stop")
        Runner(project.workspace, opened).work()
    assert project.effects().count("profile diabetes:1") == 1
    assert project.running("prod") == "diabetes:1"


def test_after_a_reboot_what_should_run_is_started_again(project: Project) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        runner.work(run_id=runner.start("diabetes:1").number)
        for service in (project.root / "running").iterdir():
            service.unlink()
        stop = threading.Event()
        thread = threading.Thread(target=up, args=(project.workspace,), kwargs={"interval": 0.05, "stop": stop})
        thread.start()
        project.until(lambda: (project.running("dev"), project.running("prod")) == ("diabetes:1", "diabetes:1"))
        stop.set()
        thread.join()
        assert len(opened.stages.history("prod")) == 1, "nothing new was placed"
