"""What the store remembers, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from stageway.evidence import Evidence
from stageway.release import ModelVersion, Release
from stageway.store import Store
from stageway.store.decisions import Decision
from stageway.store.marks import Mark
from stageway.store.workers import GONE_MS, Worker, workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Project


@pytest.fixture
def store(either: Project) -> Iterator[Store]:
    with either.open() as opened:
        yield opened


def release(version: int, image: str = "i") -> Release:
    model = ModelVersion(registry="r", name="diabetes", version=str(version), created=version)
    return Release(model=model, model_digest="m", image_digest=image, serve_digest="s", contract_digest="c")


def place(store: Store, stage: str, what: Release, at: int = 1, endpoint: str = "http://here") -> None:
    store.stages.record(stage, what, f"diabetes-{stage}", "local", endpoint, "deployed", at)


def test_a_release_is_written_once_and_read_as_it_was(store: Store) -> None:
    first, second = release(1), release(2)
    for one in (first, first, second):
        store.releases.put(one)
    assert store.releases.get(first.id) == first
    assert store.releases.get("r-none") is None
    assert sorted(one.label for one in store.releases.all()) == ["diabetes:1", "diabetes:2"]
    assert store.releases.of(first.model) == [first]


def test_the_newest_evidence_of_a_kind_counts(store: Store) -> None:
    old = Evidence(kind="profile", facts={"p95": 1}, release="r-1")
    new = Evidence(kind="profile", facts={"p95": 2}, release="r-1")
    store.evidence.put(old, new)
    assert store.evidence.of("r-1") == {"profile": new}
    store.evidence.put(old)
    assert store.evidence.of("r-1") == {"profile": old}, "measured again, with the first result"


def test_evidence_of_another_stage_does_not_count(store: Store) -> None:
    everywhere = Evidence(kind="metrics", facts={"rmse": 1.0}, release="r-1")
    dev = Evidence(kind="smoke", facts={"passed": True}, release="r-1", stage="dev")
    prod = Evidence(kind="smoke", facts={"passed": False}, release="r-1", stage="prod")
    store.evidence.put(everywhere, dev, prod)
    assert store.evidence.of("r-1", "dev") == {"metrics": everywhere, "smoke": dev}
    assert store.evidence.of("r-1", "test") == {"metrics": everywhere}
    assert store.evidence.of("r-2") == {}


def test_a_placement_said_twice_is_one_row(store: Store) -> None:
    place(store, "dev", release(1), at=1)
    place(store, "dev", release(1), at=2)
    assert [row.at for row in store.stages.history("dev")] == [1]
    place(store, "dev", release(1), at=3, endpoint="http://there")
    current = store.stages.current("dev")
    assert current is not None
    assert (current.endpoint, current.label, current.verdict) == ("http://there", "diabetes:1", None)
    assert store.stages.current("prod") is None
    assert store.releases.get(release(1).id) == release(1), "a stage's release is known"


def test_the_last_good_release_is_proven_and_not_rejected_since(store: Store) -> None:
    for version in (1, 2, 3):
        place(store, "dev", release(version))
    assert store.stages.last_good("dev") is None, "nothing proved good"
    for version in (1, 2, 3):
        store.stages.proven("dev", release(version).id)
    assert store.stages.last_good("dev") == release(3)
    assert store.stages.last_good("dev", not_release=release(3).id) == release(2)
    store.stages.rejected("dev", release(2).id, "wrong replies")
    assert store.stages.last_good("dev", not_release=release(3).id) == release(1)
    assert store.stages.last_good("prod") is None
    assert [(row.label, row.verdict, row.why) for row in store.stages.history("dev")] == [
        ("diabetes:3", "proven", ""),
        ("diabetes:2", "rejected", "wrong replies"),
        ("diabetes:1", "proven", ""),
    ]


def test_decisions_are_kept_in_order(store: Store) -> None:
    said = [
        Decision(stage="prod", release="r-1", model="diabetes:1", decision="reject", by="ana", note="no", at=1),
        Decision(
            stage="prod", release="r-1", model="diabetes:1", decision="approve", by="ben", at=2, evidence="sha256:1"
        ),
    ]
    for decision in said:
        store.decisions.put(decision)
    assert store.decisions.of("prod", "r-1") == said
    assert store.decisions.of("prod", "r-2") == []
    assert store.decisions.of("dev", "r-1") == []


def test_a_stage_is_held_by_the_newest_word_until_it_is_cleared(store: Store) -> None:
    store.holds.set("prod", "incident", "ana")
    store.holds.set("prod", "still", "ben")
    hold = store.holds.get("prod")
    assert hold is not None
    assert (hold.reason, hold.by) == ("still", "ben")
    store.holds.clear("prod")
    store.holds.clear("prod")
    assert store.holds.get("prod") is None


def test_marks_and_workers_are_one_row_each(store: Store) -> None:
    for since in (1, 2):
        store.marks.put(Mark(pipeline="diabetes", trigger="model-version", since=since, read_at=since))
    assert [mark.since for mark in store.marks.all("diabetes")] == [2]
    worker = Worker(place="here", host="h", pid=1, start="1")
    store.workers.beat(worker)
    store.workers.beat(worker.model_copy(update={"start": "2"}))
    assert [presence.worker.start for presence in store.workers.all()] == ["2"]
    store.workers.remove(worker)
    assert store.workers.all() == []


def test_a_transaction_happens_whole_or_not_at_all(store: Store) -> None:
    class Stop(Exception):
        """Something that goes wrong half-way."""

    def half() -> None:
        with store.write():
            store.holds.set("prod", "incident", "ana")
            place(store, "dev", release(1))
            raise Stop

    with pytest.raises(Stop):
        half()
    assert store.holds.get("prod") is None
    assert store.stages.current("dev") is None
    assert store.releases.all() == []


def test_a_write_inside_a_read_is_our_bug_and_not_a_deadlock(store: Store) -> None:
    with pytest.raises(RuntimeError), store.read():
        store.holds.set("prod", "incident", "ana")


def test_a_worker_that_was_killed_is_forgotten_after_a_day(store: Store) -> None:
    killed, lives = (Worker(place="here", host="h", pid=pid, start="1") for pid in (1, 2))
    for worker in (killed, lives):
        store.workers.beat(worker)
    almost, over = store.database.now() - GONE_MS + 60_000, store.database.now() - GONE_MS - 1
    for beat_at, left in ((almost, [1, 2]), (over, [2])):
        with store.write() as connection:
            connection.execute(update(workers).where(workers.c.pid == 1).values(beat_at=beat_at))
        store.workers.beat(lives)
        assert sorted(presence.worker.pid for presence in store.workers.all()) == left
