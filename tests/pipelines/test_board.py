"""The board says what does not answer and how it starts again; the ledger's rows say what their runs do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stageway import plugins
from stageway.pipelines.board import BoardRow, board
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
