"""``rollback`` goes to the last release that proved good, never to a rejected one, and holds when a person asked."""

from __future__ import annotations

from typing import Any

import pytest

from stageway.dossier import Dossier
from stageway.errors import PackagingError, RefusedError, TryAgainError, WaitingError
from stageway.tasks.deploy import deploy
from stageway.tasks.rollback import rollback
from stageway.tasks.smoke_test import smoke_test


@pytest.fixture
def served(project: Any) -> Any:
    """Serve versions in ``dev`` one after the other; those in *bad* fail their smoke test."""

    def serving(*numbers: int, bad: tuple[int, ...] = ()) -> list[Dossier]:
        found = []
        for number in numbers:
            dossier = project.version(number, **({"reply": [0.0, 0.0]} if number in bad else {}))
            dossier = deploy(dossier, project.workspace, stage="dev")
            try:
                dossier = smoke_test(dossier, project.workspace, stage="dev")
            except RefusedError:
                assert number in bad
            found.append(dossier)
        return found

    return serving


def back(project: Any, **inputs: Any) -> Dossier:
    return rollback(Dossier(pipeline="diabetes"), project.workspace, stage="dev", **inputs)


def test_the_last_good_release_is_put_back(project: Any, served: Any) -> None:
    served(1, 2)
    grown = back(project)
    assert project.agrees("dev") == "diabetes:1"
    assert grown.need_release().label == "diabetes:1"
    assert grown.need_model().label == "diabetes:1"
    with project.store() as opened:
        assert [row.how for row in opened.stages.history("dev")] == ["rolled-back", "deployed", "deployed"]


def test_a_rejected_release_is_passed_over(project: Any, served: Any) -> None:
    served(1, 2, 3, bad=(2,))
    back(project)
    assert project.agrees("dev") == "diabetes:1"


def test_rolling_back_again_goes_further_back_and_not_forward(project: Any, served: Any) -> None:
    served(1, 2, 3)
    back(project)
    back(project)
    assert project.agrees("dev") == "diabetes:1"


def test_by_hand_the_stage_is_held_until_somebody_resumes_it(project: Any, served: Any) -> None:
    served(1, 2)
    back(project, by="ann", reason="complaints")
    with project.store() as opened:
        hold = opened.holds.get("dev")
        assert (hold.by, hold.reason) == ("ann", "complaints")
    with pytest.raises(WaitingError, match="ann: complaints"):
        deploy(project.version(3), project.workspace, stage="dev")


def test_by_itself_the_bad_release_is_rejected_and_nothing_is_held(project: Any, served: Any) -> None:
    _, bad = served(1, 2)
    grown = rollback(bad, project.workspace, stage="dev", automatic=True, reason="it failed")
    assert project.agrees("dev") == "diabetes:1"
    assert grown.need_release().label == "diabetes:2"
    with project.store() as opened:
        assert opened.holds.get("dev") is None
        verdicts = {row.label: (row.verdict, row.why) for row in opened.stages.history("dev")}
    assert verdicts == {"diabetes:1": ("proven", ""), "diabetes:2": ("rejected", "it failed")}


def test_by_itself_the_smoke_tests_reason_is_kept(project: Any, served: Any) -> None:
    _, bad = served(1, 2, bad=(2,))
    rollback(bad, project.workspace, stage="dev", automatic=True)
    with project.store() as opened:
        whys = [row.why for row in opened.stages.history("dev") if row.label == "diabetes:2"]
    assert whys
    assert all("two-patients: reply[0] is 0.0" in why for why in whys)


def test_by_itself_twice_is_as_once(project: Any, served: Any) -> None:
    *_, bad = served(1, 2, 3, bad=(3,))
    for _ in range(2):
        rollback(bad, project.workspace, stage="dev", automatic=True)
    assert project.agrees("dev") == "diabetes:2"


def test_by_itself_a_release_that_came_after_the_bad_one_is_left_alone(project: Any, served: Any) -> None:
    _, bad, _ = served(1, 2, 3, bad=(2,))
    rollback(bad, project.workspace, stage="dev", automatic=True)
    assert project.agrees("dev") == "diabetes:3"


@pytest.mark.parametrize("call", ["apply", "set_tags", "set_alias"])
@pytest.mark.parametrize("automatic", [True, False])
def test_whoever_is_interrupted_makes_it_right_by_rolling_back_again(
    project: Any, served: Any, call: str, automatic: bool
) -> None:
    *_, bad = served(1, 2, 3)
    start = bad if automatic else Dossier(pipeline="diabetes")
    project.world.faults[call] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        rollback(start, project.workspace, stage="dev", automatic=automatic)
    rollback(start, project.workspace, stage="dev", automatic=automatic)
    assert project.agrees("dev") == "diabetes:2"


def test_a_release_that_never_came_to_be_written_down_is_left_too(project: Any, served: Any) -> None:
    served(1, 2)
    project.world.faults["set_alias"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        deploy(project.version(3), project.workspace, stage="dev")
    assert project.holds("dev") == "diabetes:3"
    back(project)
    assert project.agrees("dev") == "diabetes:2"


@pytest.mark.parametrize("to", ["diabetes:1", "release id"])
def test_a_release_can_be_named(project: Any, served: Any, to: str) -> None:
    first, *_ = served(1, 2, 3)
    back(project, to=first.need_release().id if to == "release id" else to)
    assert project.agrees("dev") == "diabetes:1"


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("diabetes:2", r"diabetes:2 \(r-\w+\) was rejected there: two-patients"),
        ("diabetes:7", r"'diabetes:7' was never there; it has had: diabetes:3 \(r-\w+, proven\), diabetes:2 \(r-"),
    ],
)
def test_a_named_release_must_have_proved_good(project: Any, served: Any, to: str, says: str) -> None:
    served(1, 2, 3, bad=(2,))
    with pytest.raises(RefusedError, match=says):
        back(project, to=to)
    assert project.agrees("dev") == "diabetes:3"


def test_a_named_release_that_nobody_tested_is_refused(project: Any, served: Any) -> None:
    deploy(project.version(1), project.workspace, stage="dev")
    served(2)
    with pytest.raises(RefusedError, match="was never proven there"):
        back(project, to="diabetes:1")


def test_without_a_good_one_it_says_what_there_was(project: Any, served: Any) -> None:
    served(1, 2, bad=(1,))
    with pytest.raises(RefusedError, match=r"no release proved good before.*diabetes:1 \(r-\w+, rejected\)"):
        back(project)
    with project.store() as opened:
        assert opened.holds.get("dev") is None


def test_an_empty_stage_has_nothing_to_roll_back_to(project: Any) -> None:
    with pytest.raises(RefusedError, match="nothing was ever placed there"):
        back(project)


def test_a_bundle_that_is_gone_is_named_and_nothing_changes(project: Any, served: Any) -> None:
    first, _ = served(1, 2)
    image = first.need_release().image_digest.removeprefix("sha256:")
    (project.cache / "bundles" / image / "bundle.json").unlink()
    with pytest.raises(PackagingError, match="run `stageway package diabetes:1`"):
        back(project)
    assert project.agrees("dev") == "diabetes:2"
    with project.store() as opened:
        assert opened.holds.get("dev") is None


def test_a_version_that_is_no_longer_registered_is_put_back_all_the_same(project: Any, served: Any) -> None:
    served(1, 2)
    del project.world.models["diabetes:1"]
    back(project)
    assert project.holds("dev") == "diabetes:1"
    assert "dev" not in project.world.aliases


def test_a_registry_that_is_away_does_not_stop_the_traffic_from_moving(project: Any, served: Any) -> None:
    served(1, 2)
    project.world.faults["find"] = TryAgainError("registry does not answer")
    with pytest.raises(TryAgainError):
        back(project)
    assert project.holds("dev") == "diabetes:1"
    back(project)
    assert project.agrees("dev") == "diabetes:1"
