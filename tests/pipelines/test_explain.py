"""An explanation names what stopped a version, and the command that takes it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stageway.pipelines.explain import Explanation, explain
from stageway.pipelines.runner import Retry, Runner

if TYPE_CHECKING:
    from tests.conftest import Project


def explained(project: Project, label: str = "diabetes:1") -> Explanation:
    with project.open() as opened:
        return explain(project.workspace, opened, label)


def taken(project: Project, **script: Any) -> Explanation:
    project.script(**script)
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        runner.work(run_id=runner.start("diabetes:1").number)
    return explained(project)


@pytest.mark.parametrize("task", ["profile", "deploy dev"])
def test_what_stopped_a_version_stands_in_its_way(project: Project, task: str) -> None:
    project.register("diabetes:1")
    found = taken(project, **{task: {"raise": "RefusedError", "say": "the script does not start"}})
    assert (found.unmet[0].gate, found.unmet[0].state) == (task.partition(" ")[0], "closed")
    assert "the script does not start" in found.unmet[0].text
    assert found.unmet[0].who.endswith("the entry script or the model; `stageway run diabetes:1` after the fix")
    assert found.next_command == ""


def test_what_was_away_is_not_the_scripts_fault(project: Project) -> None:
    project.register("diabetes:1")
    project.script(profile={"raise": "TryAgainError", "say": "no network"})
    with project.open() as opened:
        runner = Runner(project.workspace, opened, retry=Retry(limit=0))
        runner.work(run_id=runner.start("diabetes:1").number)
    assert explained(project).unmet[0].who.startswith("whoever runs what was away; ")


def test_what_a_version_got_over_does_not_stand_in_its_way(project: Project) -> None:
    project.register("diabetes:1")
    taken(project, profile={"raise": "RefusedError", "say": "the script does not start"})
    found = taken(project, **{"promote prod": {"raise": "RefusedError", "say": "diabetes:1 may not enter prod: rmse"}})
    assert (found.unmet, found.next_command) == ((), "stageway promote diabetes:1 --to prod")


def test_the_next_command_takes_a_version_on(project: Project) -> None:
    project.register("diabetes:1")
    assert explained(project).next_command == "stageway run diabetes:1"
    with project.open() as opened:
        opened.holds.set("dev", "an incident", "ana")
    assert explained(project).next_command == "", "the stage is held"
    with project.open() as opened:
        opened.holds.clear("dev")
    assert taken(project).next_command == "", "it was through"


def test_a_run_that_is_going_needs_no_command(project: Project) -> None:
    project.register("diabetes:1")
    found = taken(project, **{"promote prod": {"raise": "WaitingError", "say": "wait"}})
    assert (found.next_stage, found.next_command) == ("prod", "")
