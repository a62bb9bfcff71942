"""Every version that a trigger tells of starts once, or the ledger says why not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, event

from stageway import output
from stageway.errors import ConfigError, TryAgainError
from stageway.pipelines.runner import Runner
from stageway.store import Store
from stageway.watch.watcher import Watcher

if TYPE_CHECKING:
    from tests.conftest import Project

NOWHERE: dict[str, str] = {}


def watch(project: Project, opened: Store, from_: int | None = None) -> list[str]:
    """Do one pass and return the labels whose runs started."""
    return [run.label for run in Watcher(project.workspace, opened, from_=from_, environ=NOWHERE).once()]


def ledger(opened: Store) -> dict[str, tuple[str | None, str]]:
    return {row.model.label: (row.ended, row.reason) for row in opened.ledger.all(1000)}


def test_versions_from_before_the_pipeline_are_written_down_and_not_deployed(either: Project) -> None:
    either.register("diabetes:1")
    either.register("diabetes:2")
    with either.open() as opened:
        assert watch(either, opened) == []
        before = ("skipped", "before the pipeline")
        assert ledger(opened) == {"diabetes:1": before, "diabetes:2": before}
        either.register("diabetes:3")
        assert watch(either, opened) == ["diabetes:3"]
        assert watch(either, opened) == [], "once"
        assert ledger(opened)["diabetes:3"] == (None, "")


def test_a_pipeline_that_starts_before_its_first_version_misses_nothing(project: Project) -> None:
    with project.open() as opened:
        assert watch(project, opened) == []
        project.register("diabetes:1")
        assert watch(project, opened) == ["diabetes:1"]


def test_from_takes_what_was_there_before(project: Project) -> None:
    for version in ("1", "2", "3"):
        project.register(f"diabetes:{version}")
    with project.open() as opened:
        assert watch(project, opened, from_=project.clock - 1000) == ["diabetes:2", "diabetes:3"]
        assert ledger(opened)["diabetes:1"] == ("skipped", "before the pipeline")
        assert watch(project, opened, from_=0) == ["diabetes:1"], "also later"


def test_a_newer_version_supersedes_what_has_not_started(project: Project) -> None:
    with project.open() as opened:
        watch(project, opened)
        project.register("diabetes:1")
        project.register("diabetes:2")
        assert watch(project, opened) == ["diabetes:1", "diabetes:2"]
        assert ledger(opened)["diabetes:1"] == ("superseded", "superseded by diabetes:2 (run 2)")
        Runner(project.workspace, opened).work()
        assert ledger(opened)["diabetes:2"][0] == "promoted"
    assert not any("diabetes:1" in effect for effect in project.effects())


def test_every_version_has_its_turn_when_the_policy_says_so(project: Project) -> None:
    (project.root / "stageway.yml").write_text(f"triggers: [model-version: {{policy: every}}]\n{project.file}")
    with project.open() as opened:
        watch(project, opened)
        for version in ("1", "2", "3"):
            project.register(f"diabetes:{version}")
        watch(project, opened)
        Runner(project.workspace, opened).work()
        assert {ended for ended, _ in ledger(opened).values()} == {"promoted"}
    assert [effect for effect in project.effects() if effect.startswith("register")] == [
        "register diabetes:1",
        "register diabetes:2",
        "register diabetes:3",
    ]


def test_a_version_that_was_deleted_and_registered_again_is_new(project: Project) -> None:
    with project.open() as opened:
        watch(project, opened)
        project.register("diabetes:1")
        assert watch(project, opened) == ["diabetes:1"]
        project.unregister("diabetes:1")
        project.register("diabetes:1")
        assert watch(project, opened) == ["diabetes:1"]
        assert len(opened.ledger.of("diabetes", "1")) == 2


def test_a_version_that_becomes_visible_late_is_not_missed(project: Project) -> None:
    with project.open() as opened:
        watch(project, opened)
        project.register("diabetes:2")
        assert watch(project, opened) == ["diabetes:2"]
        project.register("diabetes:1", created=project.clock - 60_000)
        assert "diabetes:1" in [row.model.label for row in opened.ledger.all()] + watch(project, opened)


def test_a_source_with_a_clock_ahead_does_not_hide_later_versions(project: Project) -> None:
    with project.open() as opened:
        watch(project, opened)
        project.register("diabetes:1", created=opened.now() + 86_400_000)
        assert watch(project, opened) == ["diabetes:1"]
        project.register("diabetes:2", created=opened.now())
        watch(project, opened)
        assert "diabetes:2" in ledger(opened)


def test_two_watchers_start_a_version_once(either: Project) -> None:
    with either.open() as first, either.open() as second:
        watch(either, first)
        for version in range(1, 21):
            either.register(f"diabetes:{version}")
        together = threading.Barrier(2)
        started: list[list[str]] = [[], []]

        def pass_once(at: int, opened: Store) -> None:
            watcher = Watcher(either.workspace, opened, environ=NOWHERE)
            together.wait()
            started[at] = [run.label for run in watcher.once()]

        threads = [threading.Thread(target=pass_once, args=(at, one)) for at, one in enumerate((first, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(started[0] + started[1]) == sorted(f"diabetes:{version}" for version in range(1, 21))
        assert len(first.runs.all(100)) == 20


def test_a_registry_that_is_away_is_said_once_and_waited_for(project: Project) -> None:
    said: list[str] = []
    stop, started = threading.Event(), threading.Event()
    with project.open() as opened, output.notes_to(said.append):
        watch(project, opened)
        project.registry_away(True)
        with pytest.raises(TryAgainError):
            watch(project, opened)
        watcher = Watcher(project.workspace, opened, on_start=lambda run: started.set(), environ=NOWHERE)

        def loop() -> None:
            with output.notes_to(said.append):
                watcher.loop(0.01, stop)

        thread = threading.Thread(target=loop)
        thread.start()
        project.until(
            lambda: [mark.problem for mark in opened.marks.all("diabetes")] == ["the registry does not answer"]
        )
        project.register("diabetes:1")
        project.registry_away(False)
        assert started.wait(30)
        project.until(lambda: [mark.problem for mark in opened.marks.all("diabetes")] == [""])
        stop.set()
        thread.join()
    assert [text for text in said if "registry" in text] == [
        "the registry does not answer; the watcher goes on when it is back",
        "the registry answers again",
    ]


def test_what_trying_again_does_not_help_is_said_once_and_the_watcher_goes_on(
    project: Project,
) -> None:
    said: list[str] = []
    stop, started = threading.Event(), threading.Event()
    read_only = threading.Event()
    with project.open() as opened:
        watch(project, opened)
        watcher = Watcher(project.workspace, opened, on_start=lambda run: started.set(), environ=NOWHERE)

        @event.listens_for(opened.database.engine, "begin")
        def switch(connection: Connection) -> None:
            connection.exec_driver_sql(f"PRAGMA query_only={int(read_only.is_set())}")

        read_only.set()
        project.register("diabetes:1")

        def loop() -> None:
            with output.notes_to(said.append):
                watcher.loop(0.01, stop)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            project.until(lambda: any("goes on when that is over" in text for text in said))
            read_only.clear()
            assert started.wait(30)
            project.until(lambda: any("this is over" in text for text in said))
        finally:
            stop.set()
            thread.join()
    assert len([text for text in said if "goes on when that is over" in text]) == 1, said


def test_an_edited_file_is_taken_for_the_next_run(project: Project) -> None:
    with project.open() as opened:
        watcher = Watcher(project.workspace, opened, environ=NOWHERE)
        watcher.once()
        (project.root / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}}\n")
        project.register("diabetes:1")
        (run,) = watcher.once()
        assert list(opened.runs.spec(run.number).stages) == ["dev"]


def test_a_file_that_breaks_does_not_stop_the_watcher(project: Project) -> None:
    said: list[str] = []
    with project.open() as opened, output.notes_to(said.append):
        watcher = Watcher(project.workspace, opened, environ=NOWHERE)
        watcher.once()
        (project.root / "stageway.yml").write_text("model: diabetes\nstages: [\n")
        project.register("diabetes:1")
        assert [run.label for run in watcher.once()] == ["diabetes:1"]
    assert any("the watcher goes on with the file as it was" in text for text in said)


def test_two_pipelines_on_one_database_do_not_see_each_other(project: Project) -> None:
    other = type(project)(project.root.parent / "other", project.file, f"sqlite:///{project.workspace.state}/state.db")
    project.register("diabetes:1")
    other.register("diabetes:1")
    with project.open() as mine, other.open() as theirs:
        assert mine.workspace != theirs.workspace
        watch(project, mine, from_=0)
        assert watch(other, theirs, from_=0) == ["diabetes:1"]
        assert len(mine.runs.all()) == len(theirs.runs.all()) == 1


@pytest.mark.parametrize("ci", ["true", "1"])
def test_ci_without_a_database_is_refused_and_told_which_setting(project: Project, ci: str) -> None:
    with project.open() as opened:
        with pytest.raises(ConfigError, match=r"STAGEWAY_DATABASE_URL \(or workspace\.database in stageway\.yml\)"):
            Watcher(project.workspace, opened, environ={"CI": ci})
        Watcher(project.workspace, opened, environ={"CI": ci, "STAGEWAY_STATE_IS_DURABLE": "1"})


def test_ci_with_a_database_watches(tmp_path_factory: pytest.TempPathFactory, project: Project) -> None:
    kept = tmp_path_factory.mktemp("kept") / "state.db"
    shared = type(project)(project.root.parent / "shared", project.file, f"sqlite:///{kept}")
    with shared.open() as opened:
        assert Watcher(shared.workspace, opened, environ={"CI": "true"}).once() == []
