"""A version goes through its tasks, each stored once; the type of an error decides what happens next."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from stageway.errors import RefusedError, RegistryError, TryAgainError
from stageway.pipelines import logs
from stageway.pipelines.runner import Retry, RunEvent, Runner
from stageway.store import Store
from stageway.store.runs import Run

if TYPE_CHECKING:
    from tests.conftest import Project

QUICK = Retry(limit=3, first=0.01, longest=0.05)
WAY = [
    "register diabetes:1",
    "profile diabetes:1",
    "package diabetes:1",
    "deploy dev diabetes:1",
    "smoke-test dev diabetes:1",
    "promote prod diabetes:1",
    "smoke-test prod diabetes:1",
]


def take(project: Project, label: str, events: list[RunEvent] | None = None) -> Run:
    """Take one version through the pipeline as ``stageway run`` does."""
    with project.open() as opened:
        runner = Runner(project.workspace, opened, retry=QUICK)
        run = runner.work(run_id=runner.start(label).number, on_event=events.append if events is not None else None)
    assert run is not None
    return run


def test_a_version_is_taken_to_the_last_stage(either: Project) -> None:
    either.register("diabetes:1")
    run = take(either, "diabetes")
    assert (run.state, run.outcome, run.reason, run.exit_code) == ("ended", "promoted", "diabetes:1 is in prod", 0)
    assert either.effects() == WAY
    assert either.running("prod") == "diabetes:1"
    with either.open() as opened:
        row = opened.ledger.get("diabetes", run.identity)
        assert row is not None
        assert (row.ended, row.run) == ("promoted", run.number)
        assert [task.state for task in opened.runs.tasks(run.number)] == ["done"] * 7
        dossier = opened.runs.dossier(run.number)
        assert dossier.deployment("prod").release == dossier.need_release().id


def test_a_live_display_hears_what_happens(project: Project) -> None:
    project.register("diabetes:1")
    events: list[RunEvent] = []
    run = take(project, "diabetes:1", events)
    assert [event.kind for event in events[:3]] == ["task", "note", "done"]
    assert [event.text for event in events if event.kind == "ended"] == ["promoted: diabetes:1 is in prod"]
    assert any("package: package of diabetes:1" in line for line in logs.lines(project.workspace, run.number))


def test_a_refused_version_stops_where_it_was_refused(project: Project) -> None:
    project.register("diabetes:1")
    project.script(package={"raise": "RefusedError", "say": "the reply contract is broken"})
    run = take(project, "diabetes:1")
    assert (run.outcome, run.reason, run.exit_code) == ("stopped", "the reply contract is broken", 1)
    assert project.effects() == WAY[:3]


def test_a_bad_version_is_replaced_by_the_last_good_one(project: Project) -> None:
    for number in ("1", "2"):
        project.register(f"diabetes:{number}")
        assert take(project, f"diabetes:{number}").outcome == "promoted"
    project.register("diabetes:3")
    project.script(**{"smoke-test dev diabetes:3": {"raise": "RefusedError", "say": "a reply is text"}})
    run = take(project, "diabetes:3")
    assert (run.outcome, run.stage) == ("stopped", "dev")
    assert run.reason == "a reply is text; dev was rolled back to diabetes:2"
    assert (project.running("dev"), project.running("prod")) == ("diabetes:2", "diabetes:2")
    with project.open() as opened:
        assert [(task.task, task.state) for task in opened.runs.tasks(run.number)][-2:] == [
            ("smoke-test", "refused"),
            ("rollback", "done"),
        ]


def test_a_rejected_version_is_never_rolled_back_to(project: Project) -> None:
    for number, bad in (("1", False), ("2", True), ("3", True)):
        project.register(f"diabetes:{number}")
        project.script(**{"smoke-test dev": {"raise": "RefusedError", "say": "bad"}} if bad else {})
        take(project, f"diabetes:{number}")
    assert project.running("dev") == "diabetes:1"


def test_the_first_version_has_nothing_to_be_rolled_back_to(project: Project) -> None:
    project.register("diabetes:1")
    project.script(**{"smoke-test dev": {"raise": "RefusedError", "say": "bad"}})
    assert take(project, "diabetes:1").reason == "bad"
    assert "rollback dev diabetes:1" not in project.effects()


def test_a_rollback_that_fails_is_said(project: Project) -> None:
    project.register("diabetes:1")
    take(project, "diabetes:1")
    project.register("diabetes:2")
    project.script(
        **{
            "smoke-test dev diabetes:2": {"raise": "RefusedError", "say": "bad"},
            "rollback dev": {"raise": "TargetError", "say": "no room"},
        }
    )
    run = take(project, "diabetes:2")
    assert (run.outcome, run.reason) == ("stopped", "bad; dev could not be rolled back: no room")


@pytest.mark.parametrize(("times", "outcome", "calls"), [(1, "promoted", 2), (3, "promoted", 4), (9, "failed", 4)])
def test_only_who_is_away_is_asked_again_and_not_for_ever(
    project: Project, times: int, outcome: str, calls: int
) -> None:
    project.register("diabetes:1")
    project.script(package={"raise": "TryAgainError", "say": "the index is away", "times": times})
    run = take(project, "diabetes:1")
    assert run.outcome == outcome
    assert project.effects().count("package diabetes:1") == calls
    if outcome == "failed":
        assert (run.reason, run.exit_code) == ("the index is away (tried 4 times)", 3)


@pytest.mark.parametrize("kind", ["ConfigError", "TargetError", "PackagingError", "StagewayError"])
def test_what_trying_again_cannot_help_fails_at_once(project: Project, kind: str) -> None:
    project.register("diabetes:1")
    project.script(profile={"raise": kind, "say": "stageway.lock: is stale"})
    run = take(project, "diabetes:1")
    assert (run.outcome, run.reason, run.exit_code) == ("failed", "stageway.lock: is stale", 2)
    assert project.effects() == WAY[:2]


def test_a_bug_in_a_task_ends_its_run_and_keeps_the_traceback(project: Project) -> None:
    project.register("diabetes:1")
    project.script(profile={"raise": "a bug", "say": "list index out of range"})
    run = take(project, "diabetes:1")
    assert (run.outcome, run.exit_code) == ("failed", 70)
    assert run.reason == "profile broke: ValueError: list index out of range"
    assert any("Traceback" in line for line in logs.lines(project.workspace, run.number))


def test_a_run_that_waits_costs_a_row_and_goes_on(project: Project) -> None:
    project.register("diabetes:1")
    project.script(**{"promote prod": {"raise": "WaitingError", "say": "needs an approval", "times": 1}})
    run = take(project, "diabetes:1")
    assert (run.state, run.outcome, run.reason, run.stage) == ("waiting", None, "needs an approval", "prod")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        assert runner.work() is None, "nobody woke it"
        assert opened.runs.get(run.number) == run
        runner.resume(run)
        ended = runner.work(run_id=run.number)
    assert ended is not None
    assert ended.outcome == "promoted"
    assert project.effects() == [*WAY[:6], *WAY[5:]]


def test_a_run_may_be_asked_again_as_often_as_somebody_likes_while_it_waits(project: Project) -> None:
    project.register("diabetes:1")
    project.script(**{"promote prod": {"raise": "WaitingError", "say": "needs an approval", "times": 12}})
    with project.open() as store:
        runner = Runner(project.workspace, store)
        for _ in range(12):
            run = runner.work(run_id=runner.start("diabetes:1").number)
            assert run is not None
            assert run.state == "waiting"
        done = runner.work(run_id=runner.start("diabetes:1").number)
        assert done is not None
        assert done.outcome == "promoted"


def test_a_held_stage_makes_runs_wait_until_it_is_resumed(project: Project) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        opened.holds.set("prod", "rolled back by hand", "ana")
    run = take(project, "diabetes:1")
    assert run.state == "waiting"
    assert run.reason.startswith("prod is held since ")
    assert run.reason.endswith("by ana (rolled back by hand): `stageway resume prod`")
    assert "promote prod diabetes:1" not in project.effects()
    with project.open() as opened:
        opened.holds.clear("prod")
    assert take(project, "diabetes:1").outcome == "promoted"


def test_a_version_deleted_while_its_run_goes_is_not_placed(project: Project) -> None:
    project.register("diabetes:1")
    project.script(**{"promote prod": {"raise": "WaitingError", "say": "needs an approval"}})
    run = take(project, "diabetes:1")
    project.unregister("diabetes:1")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        runner.resume(run)
        ended = runner.work(run_id=run.number)
    assert ended is not None
    assert ended.outcome == "cancelled"
    assert ended.reason == "diabetes:1 was deleted from the registry while run 1 was going"
    assert project.running("prod") is None


def test_a_version_deleted_and_registered_again_is_another_one(project: Project) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        first = runner.start("diabetes:1")
        project.unregister("diabetes:1")
        project.register("diabetes:1")
        ended = runner.work(run_id=first.number)
        assert ended is not None
        assert ended.reason == "diabetes:1 was deleted and registered again while run 1 was going"
        second = runner.start("diabetes:1")
        assert second.identity != first.identity
        done = runner.work(run_id=second.number)
    assert done is not None
    assert done.outcome == "promoted"


def test_a_run_keeps_the_pipeline_that_it_started_with(project: Project) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        run = Runner(project.workspace, opened).start("diabetes:1")
    (project.root / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}, test: {}, prod: {}}\n")
    with project.open() as opened:
        Runner(project.workspace, opened).work()
        assert [(one.number, one.outcome) for one in opened.runs.all()] == [(run.number, "promoted")]
    assert project.effects() == WAY


def test_a_version_can_be_run_again_after_it_ended(project: Project) -> None:
    project.register("diabetes:1")
    project.script(profile={"raise": "ConfigError", "say": "no samples"})
    assert take(project, "diabetes:1").outcome == "failed"
    project.script()
    again = take(project, "diabetes:1")
    assert (again.number, again.outcome) == (2, "promoted")
    with project.open() as opened:
        assert [row.run for row in opened.ledger.all()] == [2]


def test_a_reference_that_names_nothing_starts_nothing(project: Project) -> None:
    with project.open() as opened, pytest.raises(RegistryError, match="diabetes:7"):
        Runner(project.workspace, opened).start("diabetes:7")


def test_a_model_of_another_pipeline_is_refused(project: Project) -> None:
    project.register("iris:1")
    with project.open() as opened, pytest.raises(RegistryError, match="this pipeline is for diabetes"):
        Runner(project.workspace, opened).start("iris:1")


def test_a_registry_that_is_away_says_try_again(project: Project) -> None:
    project.registry_away(True)
    with project.open() as opened, pytest.raises(TryAgainError):
        Runner(project.workspace, opened).start("diabetes:1")


def test_a_cancelled_run_ends_and_says_why(project: Project) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        run = runner.cancel(runner.start("diabetes:1"), "not today")
        assert (run.outcome, run.reason) == ("cancelled", "not today")
        with pytest.raises(RefusedError, match="has ended"):
            runner.resume(run)
        assert runner.work() is None
    assert project.effects() == []


def test_a_run_that_is_worked_on_is_cancelled_after_its_task(project: Project) -> None:
    project.register("diabetes:1")
    project.script(profile={"until": "go"})
    process = project.process(start="diabetes:1")
    project.until(lambda: "profile diabetes:1" in project.effects())
    with project.open() as opened:
        Runner(project.workspace, opened).cancel(1, "not today")
        (project.root / "go").touch()
        process.communicate(timeout=60)
        assert process.returncode == 1
        assert [one.outcome for one in opened.runs.all()] == ["cancelled"]
    assert project.effects() == WAY[:2]


def test_cancelling_does_not_leave_a_bad_version_in_a_stage(project: Project) -> None:
    project.register("diabetes:1")
    assert take(project, "diabetes:1").outcome == "promoted"
    project.register("diabetes:2")
    project.script(
        **{"smoke-test dev diabetes:2": {"raise": "RefusedError", "say": "a reply is text"}},
        **{"deploy dev diabetes:2": {"until": "go"}},
    )
    process = project.process(start="diabetes:2")
    project.until(lambda: "deploy dev diabetes:2" in project.effects())
    with project.open() as opened:
        Runner(project.workspace, opened).cancel(2, "not today")
        (project.root / "go").touch()
        process.communicate(timeout=60)
        ended = opened.runs.get(2)
    assert ended is not None
    assert (ended.outcome, ended.reason) == ("stopped", "a reply is text; dev was rolled back to diabetes:1")
    assert project.running("dev") == "diabetes:1"


def test_a_cancelled_version_that_proves_good_goes_no_further(project: Project) -> None:
    project.register("diabetes:1")
    project.script(**{"deploy dev": {"until": "go"}})
    process = project.process(start="diabetes:1")
    project.until(lambda: "deploy dev diabetes:1" in project.effects())
    with project.open() as opened:
        Runner(project.workspace, opened).cancel(1, "not today")
        (project.root / "go").touch()
        process.communicate(timeout=60)
        assert [run.outcome for run in opened.runs.all()] == ["cancelled"]
        assert [row.verdict for row in opened.stages.history("dev")] == ["proven"]
    assert project.effects() == WAY[:5]


@pytest.mark.parametrize("stored", ["the pipeline", "the dossier", "a newer dossier"])
def test_a_run_that_cannot_be_read_ends_and_stops_no_other(either: Project, stored: str) -> None:
    for label in ("diabetes:1", "diabetes:2"):
        either.register(label)
    with either.open() as opened:
        runner = Runner(either.workspace, opened, retry=QUICK)
        broken, other = runner.start("diabetes:2"), runner.start("diabetes:1")
        if stored == "the pipeline":
            opened.runs.change(broken.number, spec='{"model": "diabetes", "key-of-another-version": 1}')
        else:
            dossier = '{"format": 99}' if stored == "a newer dossier" else '{"key-of-another-version": 1}'
            opened.runs.change_task(broken.number, 1, dossier=dossier)
        events: list[RunEvent] = []
        runner.work(on_event=events.append)
        ended = opened.runs.get(broken.number)
        assert ended is not None
        assert (ended.outcome, ended.exit_code) == ("failed", 2)
        assert ended.reason.startswith(f"run {broken.number} of diabetes:2 was stored by another version of Stageway")
        assert ended.reason.endswith("`stageway run diabetes:2` starts it anew")
        assert [task.error for task in opened.runs.tasks(broken.number)] == [ended.reason]
        assert f"failed: {ended.reason}" in [event.text for event in events if event.kind == "ended"]
        again = opened.runs.get(other.number)
        assert again is not None
        assert again.outcome == "promoted"


def test_a_worker_that_stops_gives_the_run_back_though_the_database_is_busy(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stageway.store.base.BUSY_SECONDS", 0.05)
    project.register("diabetes:1")
    stop = threading.Event()
    with project.open() as opened, project.open() as other:
        runner = Runner(project.workspace, opened)
        number, busy = runner.start("diabetes:1").number, ExitStack()

        def hear(event: RunEvent) -> None:
            if event.kind == "done" and not stop.is_set():
                stop.set()
                held = threading.Event()
                thread = threading.Thread(target=hold_database, args=(other, held))
                thread.start()
                busy.callback(thread.join)
                assert held.wait(30)

        with busy:
            runner.work(run_id=number, stop=stop, on_event=hear)
        run = opened.runs.get(number)
    assert run is not None
    assert (run.state, run.reason) == ("queued", "the worker was asked to stop")


def hold_database(opened: Store, held: threading.Event) -> None:
    """Keep others from writing for longer than one write waits."""
    with opened.write():
        held.set()
        time.sleep(1)


def test_who_asks_for_a_long_wait_gets_it_and_the_doubling_ends() -> None:
    retry = Retry(first=1.0, longest=120.0)
    assert all(retry.seconds(0, 300.0) >= 300.0 for _ in range(100))
    assert all(120.0 <= retry.seconds(20, 0.0) <= 150.0 for _ in range(100))
