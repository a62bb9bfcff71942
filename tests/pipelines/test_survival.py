"""Whoever is killed, stopped or doubled: a version is taken through once, and the same command again finishes it.

Processes are real and die by SIGKILL before or just after one of their durable commits.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stageway.pipelines.runner import Runner

if TYPE_CHECKING:
    from tests.conftest import Project

SEED = 20
FEW = 2


def said(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for a process and return what it printed."""
    out, _ = process.communicate(timeout=120)
    lines = out.splitlines()
    return [json.loads(line) if line.startswith("{") else {"kind": "other", "text": line} for line in lines]


def count_commits(project: Project, label: str) -> int:
    lines = said(project.process(start=label))
    return next(int(line["text"]) for line in lines if line["kind"] == "commits")


def points(commits: int, some: int | None) -> list[tuple[int, bool]]:
    """Return the points to die at: every one, or *some* chosen by seed."""
    every = [(commit, after) for commit in range(1, commits + 1) for after in (False, True)]
    return every if some is None else random.Random(SEED).sample(every, some)


def fresh(project: Project, at: object, bad: bool) -> Project:
    """Return a new project; with *bad* version 1 is in every stage and version 2 fails its smoke test in dev."""
    database = project.environ.get("STAGEWAY_DATABASE_URL")
    file = project.file if database is None else project.file.replace("shared", f"shared-{at}")
    made = type(project)(project.root.parent / f"at-{at}", file.partition("\n")[2] if database else file, database)
    (made.root / "stageway.yml").write_text(file)
    made.register("diabetes:1")
    made.open().close()
    if bad:
        said(made.process(start="diabetes:1"))
        made.register("diabetes:2")
        made.script(**{"smoke-test dev diabetes:2": {"raise": "RefusedError", "say": "a reply is text"}})
    return made


def kill_and_go_on(project: Project, at: tuple[int, bool], *, bad: bool) -> None:
    """Kill a run at one point, give the same command again, and compare with a run that nobody killed."""
    label = "diabetes:2" if bad else "diabetes:1"
    # A lease of an hour: what is left behind is taken over because its process is known to be dead.
    killed = project.process(start=label, kill_at=at[0], after=at[1], lease=3600.0)
    said(killed)
    assert killed.returncode == -signal.SIGKILL, at
    again = project.process(start=label)
    lines = said(again)
    with project.open() as opened:
        runs = [run for run in opened.runs.all() if run.label == label]
        if runs[0].number != min(run.number for run in runs):
            # It had ended before the kill; the command again is a second run of a version, as a person may ask for.
            assert (at[1], runs[-1].state) == (True, "ended"), (at, lines)
        expected = "stopped" if bad else "promoted"
        assert [run.outcome for run in runs] == [expected] * len(runs), (at, lines)
        rows = [row for row in opened.ledger.all() if row.model.label == label]
        assert [(row.ended, row.run) for row in rows] == [(expected, runs[0].number)], at
        tasks = opened.runs.tasks(runs[0].number)
        assert [task.number for task in tasks] == list(range(1, len(tasks) + 1)), at
        assert {task.state for task in tasks} <= {"done", "refused"}, at
        assert not opened.runs.going(), at
    assert project.running("dev") == "diabetes:1", at
    assert project.running("prod") == "diabetes:1", at
    if len(runs) == 1:
        twice = [effect for effect, times in Counter(project.effects()).items() if times > 1]
        assert len(twice) <= 1, (at, "only the task that was going may be done again", twice)


@pytest.mark.parametrize("bad", [False, True], ids=["good", "rolled back"])
def test_a_killed_run_is_finished_by_the_same_command(either: Project, bad: bool) -> None:
    commits = count_commits(fresh(either, "counted", bad), "diabetes:2" if bad else "diabetes:1")
    assert commits > 8
    for at in points(commits, FEW):
        kill_and_go_on(fresh(either, f"{at[0]}-{at[1]}", bad), at, bad=bad)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [False, True], ids=["good", "rolled back"])
def test_a_run_killed_at_any_commit_is_finished_by_the_same_command(project: Project, bad: bool) -> None:
    commits = count_commits(fresh(project, "counted", bad), "diabetes:2" if bad else "diabetes:1")
    for at in points(commits, None):
        kill_and_go_on(fresh(project, f"{at[0]}-{at[1]}", bad), at, bad=bad)


def test_two_workers_never_do_one_task_twice(either: Project) -> None:
    (either.root / "stageway.yml").write_text(
        f"triggers: [model-version: {{policy: every}}]\n{(either.root / 'stageway.yml').read_text()}"
    )
    with either.open() as opened:
        runner = Runner(either.workspace, opened)
        for version in range(1, 6):
            either.register(f"diabetes:{version}")
            runner.start(f"diabetes:{version}")
        workers = [either.process(), either.process(), either.process()]
        for worker in workers:
            said(worker)
        assert [run.outcome for run in opened.runs.all()] == ["promoted"] * 5
        assert {task.attempt for run in opened.runs.all() for task in opened.runs.tasks(run.number)} == {1}
    assert len(either.effects()) == 35
    assert set(Counter(either.effects()).values()) == {1}


def test_two_commands_for_one_version_at_once_one_does_it_and_the_other_says_so(project: Project) -> None:
    project.register("diabetes:1")
    project.script(profile={"until": "go"})
    first = project.process(start="diabetes:1")
    project.until(lambda: "profile diabetes:1" in project.effects())
    second = project.process(start="diabetes:1")
    lines = said(second)
    assert second.returncode == 3
    assert lines[-1]["text"].startswith(f"diabetes:1: run 1 by pid {first.pid} on ")
    (project.root / "go").touch()
    said(first)
    assert first.returncode == 0
    assert set(Counter(project.effects()).values()) == {1}


def test_a_worker_that_hangs_loses_its_run_and_what_it_says_later_is_refused(either: Project) -> None:
    either.register("diabetes:1")
    either.script(**{"smoke-test dev": {"until": "go"}})
    first = either.process(start="diabetes:1", lease=1.0)
    either.until(lambda: "smoke-test dev diabetes:1" in either.effects())
    first.send_signal(signal.SIGSTOP)
    try:
        with either.open() as opened:
            either.until(lambda: all((run.lease_until or 0) < opened.now() for run in opened.runs.going()))
            second = either.process()
            either.until(lambda: either.effects().count("smoke-test dev diabetes:1") == 2)
            (either.root / "go").touch()
            said(second)
            assert [run.outcome for run in opened.runs.all()] == ["promoted"]
            before = [opened.runs.tasks(1), opened.stages.history("dev"), opened.ledger.all()]
            first.send_signal(signal.SIGCONT)
            lines = said(first)
            assert any("was taken over by another worker" in line["text"] for line in lines), lines
            assert [opened.runs.tasks(1), opened.stages.history("dev"), opened.ledger.all()] == before
    finally:
        first.kill()
        first.wait()
    assert either.effects().count("promote prod diabetes:1") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_the_run_to_be_continued_at_once(
    project: Project, number: signal.Signals
) -> None:
    project.register("diabetes:1")
    project.script(profile={"until": "go"})
    process = project.process(start="diabetes:1", lease=3600.0)
    project.until(lambda: "profile diabetes:1" in project.effects())
    process.send_signal(number)
    said(process)
    assert process.returncode != 0
    with project.open() as opened:
        (run,) = opened.runs.all()
        assert (run.state, run.reason, run.worker) == ("queued", "interrupted; the same command goes on", None)
        (project.root / "go").touch()
        again = Runner(project.workspace, opened)
        ended = again.work(run_id=again.start("diabetes:1").number)
        assert ended is not None
        assert (ended.number, ended.outcome) == (run.number, "promoted")
        assert {task.attempt for task in opened.runs.tasks(run.number)} == {1}


def test_a_task_that_kills_every_worker_is_given_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.register("diabetes:1")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        run = runner.start("diabetes:1")
        opened.runs.change_task(run.number, 1, attempt=10)
        ended = runner.work(run_id=run.number)
    assert ended is not None
    assert (ended.outcome, ended.reason) == ("failed", "register: 10 workers died in this task; see their logs")
    assert project.effects() == []


def test_a_database_that_cuts_its_connections_does_not_stop_a_run(
    postgresql_url: str, project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shared = type(project)(tmp_path_factory.mktemp("shared"), project.file, postgresql_url)
    shared.register("diabetes:1")
    shared.script(profile={"until": "go"})
    process = shared.process(start="diabetes:1")
    shared.until(lambda: "profile diabetes:1" in shared.effects())
    with shared.open() as opened, opened.read() as connection:
        cut = text("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        connection.execute(cut)
    (shared.root / "go").touch()
    lines = said(process)
    assert process.returncode == 0, lines
    assert set(Counter(shared.effects()).values()) == {1}
