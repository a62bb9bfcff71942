"""The board says what does not answer and how it starts again; the ledger's rows say what their runs do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stageway import plugins
from stageway.pipelines.board import BoardRow, board, status
from stageway.pipelines.runner import Runner
from stageway.targets.base import Observed

if TYPE_CHECKING:
    from tests.conftest import Project


@pytest.mark.parametrize(
    ("health", "reason", "problem"),
    [
        ("stopped", "", "stopped; `stageway up` starts it"),
        ("stopped", "the machine started again", "the machine started again; `stageway up` starts it"),
        ("stopped", "stopped; `stageway up` starts it", "stopped; `stageway up` starts it"),
        ("failed", "it ended with exit code 1", "it ended with exit code 1"),
        ("failed", "", "failed"),
        ("ready", "told earlier", ""),
        ("starting", "told earlier", ""),
    ],
)
def test_what_does_not_answer_says_why(
    project: Project, monkeypatch: pytest.MonkeyPatch, health: str, reason: str, problem: str
) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        runner.work(run_id=runner.start("diabetes:1").number)
        target: Any = plugins.load("target", "local")
        seen = target(project.workspace).observe("diabetes-dev")
        (revision,) = (one.model_copy(update={"health": health, "reason": reason}) for one in seen.revisions)
        reported = Observed(service="diabetes-dev", endpoint=seen.endpoint, revisions=(revision,))
        monkeypatch.setattr(target, "observe", lambda self, service: reported)
        row: BoardRow = board(project.workspace, opened)[0]
        assert (row.label, row.health, row.problem) == ("diabetes:1", health, problem)


def test_a_row_of_the_ledger_says_what_its_run_does(project: Project) -> None:
    with project.open() as opened:
        runner = Runner(project.workspace, opened)

        def doing() -> dict[int, str]:
            return status(project.workspace, opened).doing

        project.register("diabetes:1")
        runner.start("diabetes:1")
        assert doing() == {1: "queued"}
        project.script(**{"promote prod": {"raise": "WaitingError", "say": "approval: nobody has decided"}})
        runner.work()
        assert doing() == {1: "waits at prod: approval: nobody has decided"}
        runner.cancel(1, "not needed")
        assert doing() == {}


def test_a_row_of_the_ledger_tells_work_from_a_process_that_is_gone(project: Project) -> None:
    project.register("diabetes:1")
    project.script(profile={"until": "go on"})
    worker = project.process(start="diabetes:1", lease=3600.0)
    with project.open() as opened:
        try:
            project.until(lambda: "profile diabetes:1" in project.effects())
            assert status(project.workspace, opened).doing == {1: "running"}
        finally:
            worker.kill()
            worker.communicate()
        assert status(project.workspace, opened).doing == {1: "its process is gone; `stageway run diabetes:1` goes on"}
