"""Who may take a run, in which order, and what a worker may still write."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stageway import store as stores
from stageway.dossier import Dossier
from stageway.errors import TryAgainError
from stageway.events import version_created
from stageway.pipelines import decisions, ledger
from stageway.pipelines.journal import Claimed, Journal
from stageway.pipelines.process import is_dead, this_process
from stageway.pipelines.runner import Runner
from stageway.pipelines.steps import Step, after, steps
from stageway.release import ModelVersion
from stageway.specs import PipelineSpec
from stageway.store import Store
from stageway.store.base import LeaseLostError, under
from stageway.store.runs import Run
from stageway.store.workers import Worker

if TYPE_CHECKING:
    from tests.conftest import Project

ELSEWHERE = Worker(place="another machine", host="far", pid=1, start="1")


@pytest.fixture
def spec(either: Project) -> PipelineSpec:
    return either.workspace.spec


def seen(store: Store, spec: PipelineSpec, version: int, policy: ledger.Policy = "every", at: int = 0) -> Run | None:
    """Tell the ledger of a version, as a trigger does."""
    model = ModelVersion(registry="r", name="diabetes", version=str(version), created=at or version)
    return ledger.admit(store, spec, version_created(model), policy)


def asked(store: Store, spec: PipelineSpec, version: int, policy: ledger.Policy = "every") -> Run:
    """Ask for a version, as a person does."""
    model = ModelVersion(registry="r", name="diabetes", version=str(version), created=version)
    return ledger.ask(store, spec, version_created(model), policy)[0]


def must(claimed: Claimed | None) -> Claimed:
    assert claimed is not None
    return claimed


def test_a_version_is_admitted_once(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        assert seen(store, spec, 1) is not None
        assert seen(store, spec, 1) is None
        assert len(store.runs.all()) == 1


def test_runs_of_one_pipeline_go_one_at_a_time_and_in_order(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        for version in (1, 2):
            seen(store, spec, version)
        first = must(journal.claim())
        assert first.run.label == "diabetes:1"
        assert journal.claim() is None
        journal.end(first, "promoted", "", task="done", dossier=Dossier())
        assert must(journal.claim()).run.label == "diabetes:2"


def test_a_run_that_waits_keeps_its_turn_under_the_policy_every(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        for version in (1, 2):
            seen(store, spec, version)
        journal.wait(must(journal.claim()), "needs an approval", "")
        assert journal.claim() is None
        assert must(journal.claim(asked(store, spec, 2).number)).run.label == "diabetes:2", "a person does not queue"


def test_a_run_that_waits_gives_way_under_the_policy_latest(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        seen(store, spec, 1, "latest")
        journal.wait(must(journal.claim()), "needs an approval", "")
        seen(store, spec, 2, "latest")
        first, second = reversed(store.runs.all())
        assert (first.outcome, first.reason) == ("superseded", "superseded by diabetes:2 (run 2)")
        assert [task.state for task in store.runs.tasks(first.number)] == ["cancelled"]
        assert must(journal.claim()).run.number == second.number


def test_a_run_that_goes_is_superseded_only_when_it_has_to_wait(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        seen(store, spec, 1, "latest")
        claimed = must(journal.claim())
        seen(store, spec, 2, "latest")
        assert store.runs.get(1) == claimed.run
        journal.wait(claimed, "needs an approval", "")
        assert [run.outcome for run in reversed(store.runs.all())] == ["superseded", None]


def test_an_older_version_that_is_seen_late_does_not_go_after_a_newer_one(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 2, "latest")
        late = seen(store, spec, 1, "latest")
        assert late is not None
        assert (late.outcome, late.reason) == ("superseded", "superseded by diabetes:2 (run 1)")


def test_an_older_version_that_a_person_asks_for_goes(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        seen(store, spec, 2, "latest")
        journal.wait(must(journal.claim()), "needs an approval", "")
        run = asked(store, spec, 1, "latest")
        assert must(journal.claim()).run.number == run.number
        assert [one.state for one in store.runs.all()] == ["running", "waiting"]


def test_a_lease_that_is_kept_is_not_taken(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 1)
        theirs, ours = Journal(store, ELSEWHERE, 0.2), Journal(store, this_process(), 60)
        claimed = must(theirs.claim())
        theirs.lease_ms = 60_000
        theirs.beat(claimed.lease)
        assert ours.claim() is None


def test_a_stale_worker_can_write_nothing(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 1)
        stale = Journal(store, ELSEWHERE, 0.05)
        old = must(stale.claim())
        fresh = Journal(store, this_process(), 60)
        taken: list[Claimed] = []

        def take() -> bool:
            claimed = fresh.claim()
            taken.extend([claimed] if claimed is not None else [])
            return claimed is not None

        either.until(take)
        assert (taken[0].lease.token, taken[0].task.attempt) == (old.lease.token + 1, 2)
        then = after(spec, 1)
        assert then is not None
        before = (store.runs.all(), store.runs.tasks(1), store.ledger.all())
        for write in (
            lambda: stale.beat(old.lease),
            lambda: stale.done(old, Dossier(), then),
            lambda: stale.refused(old, "bad", "", then),
            lambda: stale.retry(old, "away", "", 1.0),
            lambda: stale.wait(old, "needs an approval", ""),
            lambda: stale.release(old, "interrupted"),
            lambda: stale.end(old, "promoted", "", task="done"),
        ):
            with pytest.raises(LeaseLostError):
                write()
        assert (store.runs.all(), store.runs.tasks(1), store.ledger.all()) == before


def test_what_a_task_writes_by_a_store_of_its_own_carries_the_token(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 1)
        claimed = must(Journal(store, ELSEWHERE, 0.01).claim())
        with under(claimed.lease), stores.open(either.workspace) as own:
            own.holds.set("dev", "still mine", "task")
            either.until(lambda: Journal(store, this_process(), 60).claim())
            with pytest.raises(LeaseLostError):
                own.holds.set("dev", "not mine any more", "task")
        hold = store.holds.get("dev")
        assert hold is not None
        assert hold.reason == "still mine"


def test_a_run_that_ended_is_nobodys(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 1)
        journal = Journal(store, this_process(), 60)
        claimed = must(journal.claim())
        journal.end(claimed, "stopped", "no", task="refused")
        with pytest.raises(LeaseLostError):
            journal.end(claimed, "promoted", "", task="done")


def test_many_workers_claim_a_run_once(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        for version in range(1, 4):
            seen(store, spec, version)
        together, found = threading.Barrier(4), []

        def claim() -> None:
            journal = Journal(store, this_process(), 60)
            together.wait()
            found.append(journal.claim())

        threads = [threading.Thread(target=claim) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [claimed.run.number for claimed in found if claimed is not None] == [1]


def test_results_survive_a_commit_whose_answer_was_lost(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 1)
        journal = Journal(store, this_process(), 60)
        claimed, then = must(journal.claim()), after(spec, 1)
        assert then is not None
        for _ in range(2):
            journal.done(claimed, Dossier(pipeline="kept"), then)
        assert [(task.task, task.state) for task in store.runs.tasks(1)] == [
            ("register", "done"),
            ("profile", "running"),
        ]
        assert store.runs.dossier(1).pipeline == "kept"


def test_this_process_lives_and_a_pid_that_is_used_again_does_not_count() -> None:
    mine = this_process()
    assert not is_dead(mine)
    assert is_dead(mine.model_copy(update={"start": "0"}))
    assert is_dead(mine.model_copy(update={"pid": 2**22 + 1}))
    assert not is_dead(ELSEWHERE), "nobody can tell from here"


def test_the_way_of_a_version_follows_the_stages() -> None:
    spec = PipelineSpec.model_validate({"model": "m", "stages": {"dev": {}, "test": {}, "prod": {}}})
    assert [step.name for step in steps(spec)] == [
        "register",
        "profile",
        "package",
        "deploy dev",
        "smoke-test dev",
        "promote test",
        "smoke-test test",
        "promote prod",
        "smoke-test prod",
    ]


def left_behind(store: Store, run: Run | None) -> Run:
    """Let a worker of this machine that lives no more have claimed *run*, under a lease that goes on."""
    assert run is not None
    dead = this_process().model_copy(update={"start": "0"})
    return must(Journal(store, dead, 3600).claim(run.number)).run


def test_what_a_dead_worker_left_is_carried_before_the_run_that_is_asked_for(
    either: Project, spec: PipelineSpec
) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        first = left_behind(store, asked(store, spec, 1))
        second = asked(store, spec, 2)
        claimed = must(journal.claim(second.number))
        assert claimed.run.number == first.number
        assert journal.claim(second.number) is None, "the first one is in work"
        journal.end(claimed, "promoted", "", task="done", dossier=Dossier())
        assert must(journal.claim(second.number)).run.number == second.number


def test_a_run_that_waits_takes_nothing_that_was_left_behind(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        waits = asked(store, spec, 2)
        journal.wait(must(journal.claim(waits.number)), "needs an approval", "")
        left_behind(store, asked(store, spec, 1))
        assert journal.claim(waits.number) is None


def at_task(store: Store, spec: PipelineSpec, journal: Journal, claimed: Claimed, task: str) -> Claimed:
    """Do the tasks of *claimed* until *task* is going."""
    for then in steps(spec)[1:]:
        if claimed.task.task == task:
            break
        claimed = replace(claimed, task=journal.done(claimed, Dossier(), then))
    assert claimed.task.task == task
    return claimed


def refused(journal: Journal, claimed: Claimed) -> Claimed:
    """Let the smoke test of *claimed* refuse, so that a rollback is begun."""
    then = Step(number=claimed.task.number + 1, task="rollback", stage=claimed.task.stage)
    return replace(claimed, task=journal.refused(claimed, "a reply is text", "", then))


def test_a_rollback_that_was_decided_is_done_before_anything_newer(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 1, "latest")
        journal = Journal(store, this_process(), 60)
        claimed = refused(journal, at_task(store, spec, journal, must(journal.claim()), "smoke-test"))
        seen(store, spec, 2, "latest")
        journal.retry(claimed, "the registry does not answer", "", 3600)
        assert [run.outcome for run in store.runs.all()] == [None, None]
        assert journal.claim() is None, "the newer one waits until the stage is put right"
        ledger.wake(store, claimed.run)
        asked(store, spec, 3, "latest")
        again = must(journal.claim(3))
        assert (again.run.number, again.task.task) == (1, "rollback")
        journal.end(again, "stopped", "a reply is text", task="done", dossier=Dossier())
        assert must(journal.claim(3)).run.number == 3


@pytest.mark.parametrize("stopped_by", ["a stop", "an interrupt"])
def test_what_was_placed_or_may_have_been_is_not_superseded_before_it_is_proven(
    either: Project, spec: PipelineSpec, stopped_by: str
) -> None:
    with either.open() as store:
        seen(store, spec, 1, "latest")
        journal = Journal(store, this_process(), 60)
        interrupted = stopped_by == "an interrupt"
        claimed = at_task(store, spec, journal, must(journal.claim()), "deploy" if interrupted else "smoke-test")
        seen(store, spec, 2, "latest")
        journal.release(claimed, stopped_by, midway=interrupted)
        assert [run.outcome for run in store.runs.all()] == [None, None]
        again = must(journal.claim())
        assert (again.run.number, again.task.task) == (1, claimed.task.task)


def test_a_version_that_waits_to_be_placed_or_was_not_begun_is_superseded(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal = Journal(store, this_process(), 60)
        for version, leave in ((1, journal.release), (2, lambda claimed, why: journal.wait(claimed, why, ""))):
            seen(store, spec, 2 * version, "latest")
            claimed = at_task(store, spec, journal, must(journal.claim()), "promote")
            leave(claimed, "not yet")
            seen(store, spec, 2 * version + 1, "latest")
            run = store.runs.get(claimed.run.number)
            assert run is not None
            assert run.outcome == "superseded"


def test_what_is_said_while_a_run_is_about_to_wait_is_not_lost(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal, runner = Journal(store, this_process(), 60), Runner(either.workspace, store)
        run = asked(store, spec, 1)
        for say in (lambda: runner.resume(run), lambda: lift(store, either)):
            claimed = must(journal.claim(run.number))
            say()
            assert must_find(store, run).state == "running"
            journal.wait(claimed, "prod is held", "")
            assert (must_find(store, run).state, must_find(store, run).wanted) == ("queued", "")
        journal.wait(must(journal.claim(run.number)), "prod is held", "")
        assert must_find(store, run).state == "waiting", "it was said for once"


def test_a_run_that_is_cancelled_while_it_is_about_to_wait_ends(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        journal, run = Journal(store, this_process(), 60), asked(store, spec, 1)
        claimed = must(journal.claim(run.number))
        Runner(either.workspace, store).cancel(run, "not today")
        Runner(either.workspace, store).resume(run)
        journal.wait(claimed, "needs an approval", "")
        ended = must_find(store, run)
        assert (ended.state, ended.outcome, ended.reason) == ("ended", "cancelled", "not today")
        assert [row.ended for row in store.ledger.all()] == ["cancelled"]


def test_a_run_that_begins_to_wait_in_the_moment_it_is_woken_is_not_missed(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store, either.open() as other:
        journal, run = Journal(store, this_process(), 60), asked(store, spec, 1)
        claimed = must(journal.claim(run.number))
        woken = threading.Thread(target=ledger.wake, args=(other, run))
        with store.write():
            journal.wait(claimed, "needs an approval", "")
            woken.start()
        woken.join()
        assert must_find(store, run).state == "queued"


def lift(store: Store, project: Project) -> None:
    store.holds.set("prod", "incident", "ana")
    decisions.resume(store, project.workspace, "prod")


def must_find(store: Store, run: Run) -> Run:
    found = store.runs.get(run.number)
    assert found is not None
    return found


def test_a_long_line_hides_neither_what_was_left_behind_nor_what_a_person_asks_for(
    project: Project,
) -> None:
    spec = project.workspace.spec
    with project.open() as store:
        journal = Journal(store, this_process(), 60)
        for version in range(1, 106):
            seen(store, spec, version)
        left = left_behind(store, asked(store, spec, 200))
        wanted = asked(store, spec, 201)
        claimed = must(journal.claim())
        assert claimed.run.number == left.number
        journal.end(claimed, "promoted", "", task="done", dossier=Dossier())
        assert must(journal.claim()).run.number == wanted.number


def test_a_heartbeat_and_a_result_at_once_do_not_stop_each_other(either: Project, spec: PipelineSpec) -> None:
    with either.open() as store:
        seen(store, spec, 1)
        claimed = must(Journal(store, this_process(), 60).claim())
        both, errors = threading.Barrier(2), []

        def change() -> None:
            try:
                with store.write(claimed.lease):
                    with suppress(threading.BrokenBarrierError):
                        both.wait(1)  # only one may be here at a time
                    store.runs.change(1, lease_until=store.now() + 60_000)
            except TryAgainError as error:
                errors.append(error)

        threads = [threading.Thread(target=change) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
