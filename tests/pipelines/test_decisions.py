"""A version waits for a person's word, and the word lets exactly its run go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stageway.errors import ConfigError, RefusedError
from stageway.pipelines.board import board, releases, status
from stageway.pipelines.decisions import decide, resume
from stageway.pipelines.explain import explain
from stageway.pipelines.journal import Journal
from stageway.pipelines.plan import plan
from stageway.pipelines.process import this_process
from stageway.pipelines.runner import Runner
from stageway.store import Store
from stageway.store.runs import Run

if TYPE_CHECKING:
    from tests.conftest import Project

GATED = """
model: diabetes
stages:
  dev: {}
  prod:
    gates:
      - metric: {rmse: {max: 60}}
      - approval: {}
"""


@pytest.fixture
def gated(project: Project) -> Project:
    (project.root / "stageway.yml").write_text(GATED)
    return project


def take(project: Project, opened: Store, label: str) -> Run:
    runner = Runner(project.workspace, opened)
    run = runner.work(run_id=runner.start(label).number)
    assert run is not None
    return run


def go_on(project: Project, opened: Store) -> None:
    Runner(project.workspace, opened).work()


def test_an_approval_lets_the_run_that_waits_for_it_go_on(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened:
        run = take(gated, opened, "diabetes:1")
        assert (run.state, run.stage) == ("waiting", "prod")
        decided = decide(opened, gated.workspace, "diabetes:1", "prod", "approve", "ana", "looks good")
        assert decided.run is not None
        assert (decided.run.number, decided.run.state) == (run.number, "queued")
        assert (decided.decision.by, decided.decision.attested) == ("ana", False)
        go_on(gated, opened)
        assert [one.outcome for one in opened.runs.all()] == ["promoted"]


def test_a_rejection_stops_it_and_says_who(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened:
        take(gated, opened, "diabetes:1")
        decide(opened, gated.workspace, "diabetes:1", "prod", "reject", "ben", "the data is old")
        go_on(gated, opened)
        (run,) = opened.runs.all()
        assert run.outcome == "stopped"
        assert "ben" in run.reason
    assert gated.running("prod") is None


def test_a_stage_that_asks_nobody_takes_no_decision(project: Project) -> None:
    project.register("diabetes:1")
    with project.open() as opened, pytest.raises(ConfigError, match=r"stages\.prod\.gates: has no approval"):
        decide(opened, project.workspace, "diabetes:1", "prod", "approve", "ana")


def test_nothing_is_decided_on_what_is_not_packaged(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened, pytest.raises(RefusedError, match="is not packaged yet"):
        decide(opened, gated.workspace, "diabetes:1", "prod", "approve", "ana")


def test_a_stage_that_does_not_exist_is_named(gated: Project) -> None:
    with gated.open() as opened:
        with pytest.raises(ConfigError, match=r"no stage is called 'prd'; stageway\.yml has: dev, prod"):
            decide(opened, gated.workspace, "diabetes:1", "prd", "approve", "ana")
        with pytest.raises(ConfigError, match="no stage is called 'prd'"):
            resume(opened, gated.workspace, "prd")


def test_resuming_a_held_stage_lets_its_runs_go_on(project: Project) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        opened.holds.set("prod", "an incident", "ana")
        take(project, opened, "diabetes:1")
        hold, woken = resume(opened, project.workspace, "prod")
        assert hold is not None
        assert (hold.by, [run.number for run in woken]) == ("ana", [1])
        go_on(project, opened)
        assert project.running("prod") == "diabetes:1"
        assert resume(opened, project.workspace, "prod") == (None, [])


def test_a_plan_says_the_steps_and_what_stands_in_the_way(gated: Project) -> None:
    gated.register("diabetes:1", rmse=71.0)
    planned = plan(gated.workspace, "diabetes:1")
    assert [step.name for step in planned.steps][-2:] == ["promote prod", "smoke-test prod"]
    dev, prod = planned.stages
    assert dev.conditions == ()
    assert [(one.gate, one.state) for one in prod.conditions] == [("metric", "closed"), ("approval", "missing")]
    assert "71" in prod.conditions[0].text
    assert "60" in prod.conditions[0].text
    assert planned.release is None
    assert planned.refused == ()
    assert gated.effects() == [], "nothing was started"


def test_a_plan_says_what_a_stage_cannot_honour(gated: Project) -> None:
    (gated.root / "stageway.yml").write_text(GATED + "    rollout: {canary: [5%, 100%]}\n")
    gated.register("diabetes:1", rmse=54.0)
    (refused,) = plan(gated.workspace, "diabetes:1").refused
    assert refused.startswith("stages.prod.rollout.canary")


def test_explain_says_what_happened_what_is_missing_and_who_can_give_it(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened:
        take(gated, opened, "diabetes:1")
        found = explain(gated.workspace, opened, "diabetes:1")
        assert found.summary.startswith("diabetes:1: run 1 waits: ")
        assert [(task.task, task.state) for task in found.runs[0].tasks][-1] == ("promote", "waiting")
        assert all(task.started_at is not None for task in found.runs[0].tasks)
        assert found.next_stage == "prod"
        (unmet,) = found.unmet
        assert (unmet.gate, unmet.state) == ("approval", "missing")
        assert unmet.who
        assert [one.gate for one in found.conditions if one.state == "open"] == ["smoke-test", "metric"]
        assert [row.stage for row in found.serves] == ["dev"]


def test_explain_asks_for_the_stage_that_a_version_did_not_get_into(gated: Project) -> None:
    gated.register("diabetes:1", rmse=71.0)
    gated.register("diabetes:2", rmse=54.2)
    with gated.open() as opened:
        assert take(gated, opened, "diabetes:1").outcome == "stopped"
        take(gated, opened, "diabetes:2")
        found = explain(gated.workspace, opened, "diabetes:1")
        assert (found.next_stage, found.serves) == ("prod", ()), "dev has version 2 now, and that is not the question"
        assert [(one.gate, one.who) for one in found.unmet if one.state == "closed"] == [
            ("metric", "whoever registers a better version")
        ]


def test_explain_has_no_question_for_a_version_that_was_through(project: Project) -> None:
    for version in ("1", "2"):
        project.register(f"diabetes:{version}")
        with project.open() as opened:
            take(project, opened, f"diabetes:{version}")
    with project.open() as opened:
        found = explain(project.workspace, opened, "diabetes:1")
        assert (found.next_stage, found.conditions, found.serves) == (None, (), ())
        assert [row.stage for row in found.places] == ["prod", "dev"]


def test_a_version_that_is_gone_is_explained_from_memory(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened:
        take(gated, opened, "diabetes:1")
        gated.unregister("diabetes:1")
        assert explain(gated.workspace, opened, "diabetes:1").summary.endswith("; it is gone from the registry")


def test_the_board_tells_what_the_target_reports(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened:
        assert [(row.stage, row.health) for row in board(gated.workspace, opened)] == [
            ("dev", "empty"),
            ("prod", "empty"),
        ]
        take(gated, opened, "diabetes:1")
        dev, prod = board(gated.workspace, opened)
        assert (dev.label, dev.health, dev.endpoint, dev.problem) == ("diabetes:1", "ready", "http://diabetes-dev", "")
        assert prod.waiting[0].startswith("diabetes:1: diabetes:1 waits before prod")
        (gated.root / "running" / "diabetes-dev").unlink()
        dev, _ = board(gated.workspace, opened)
        assert (dev.label, dev.health) == ("diabetes:1", "stopped")
        assert "stageway up" in dev.problem
        (gated.root / "running" / "diabetes-dev").write_text("r-other diabetes:9")
        dev, _ = board(gated.workspace, opened)
        assert (dev.label, dev.problem[:27]) == ("diabetes:9", "the history says diabetes:1")


def test_status_lists_what_goes_on(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened:
        take(gated, opened, "diabetes:1")
        found = status(gated.workspace, opened)
        assert [(run.number, run.state) for run in found.runs] == [(1, "waiting")]
        assert [row.model.label for row in found.ledger] == ["diabetes:1"]
        assert found.workers == ()


def test_releases_say_where_they_have_been(project: Project) -> None:
    for version in ("1", "2"):
        project.register(f"diabetes:{version}")
        with project.open() as opened:
            take(project, opened, f"diabetes:{version}")
    with project.open() as opened:
        newest, older = releases(project.workspace, opened)
        assert (newest.label, newest.now_in) == ("diabetes:2", ("dev", "prod"))
        assert [(row.stage, row.how, row.verdict) for row in older.places] == [
            ("prod", "promoted", "proven"),
            ("dev", "deployed", "proven"),
        ]
        assert older.now_in == ()


def test_an_approval_that_comes_while_the_run_is_going_is_seen(gated: Project) -> None:
    gated.register("diabetes:1", rmse=54.2)
    with gated.open() as opened:
        run = take(gated, opened, "diabetes:1")
        Runner(gated.workspace, opened).resume(run)
        journal = Journal(opened, this_process(), 60)
        claimed = journal.claim(run.number)
        assert claimed is not None
        decide(opened, gated.workspace, "diabetes:1", "prod", "approve", "ana")
        journal.wait(claimed, "it looked before the approval was there", "")
        go_on(gated, opened)
        assert [one.outcome for one in opened.runs.all()] == ["promoted"]
