"""``promote`` moves what is proven, when the next stage's gates agree, and says everything that stands in the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from stageway.contract import Contract, infer
from stageway.dossier import Dossier
from stageway.errors import RefusedError, WaitingError
from stageway.gates.base import evidence_digest
from stageway.store.decisions import Decision
from stageway.tasks.deploy import deploy
from stageway.tasks.judging import candidate, conditions
from stageway.tasks.promote import promote
from stageway.tasks.smoke_test import smoke_test

GATES = """
model: diabetes
serve: {{entry-script: score.py, samples: samples}}
stages:
  dev: {{target: loopback}}
  prod:
    target: loopback
    gates: [{}]
"""

Proven = Callable[..., Dossier]


@pytest.fixture
def proven(project: Any) -> Proven:
    """Make a version, deploy it to ``dev`` and let it pass its smoke test there."""

    def proving(number: int, **behaviour: Any) -> Dossier:
        return smoke_test(
            deploy(project.version(number, **behaviour), project.workspace, stage="dev"), project.workspace, stage="dev"
        )

    return proving


def approved(dossier: Dossier, decision: str = "approve", evidence: str = "") -> Decision:
    release = dossier.need_release()
    return Decision.model_validate(
        {
            "stage": "prod",
            "release": release.id,
            "model": release.label,
            "decision": decision,
            "by": "ann",
            "note": "seen",
            "at": int(time.time() * 1000),
            "evidence": evidence,
        }
    )


def test_a_proven_release_moves(project: Any, proven: Proven) -> None:
    promote(proven(1), project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"
    with project.store() as opened:
        assert [row.how for row in opened.stages.history("prod")] == ["promoted"]


def test_twice_is_as_once(project: Any, proven: Proven) -> None:
    dossier = promote(proven(1), project.workspace, to="prod")
    promote(dossier, project.workspace, to="prod")
    with project.store() as opened:
        assert len(opened.stages.history("prod")) == 1


def test_a_release_that_nobody_tested_waits_with_the_command(project: Any) -> None:
    dossier = deploy(project.version(1), project.workspace, stage="dev")
    with pytest.raises(WaitingError, match="`stageway smoke-test diabetes:1 --stage dev`"):
        promote(dossier, project.workspace, to="prod")
    assert project.holds("prod") is None


def test_a_release_that_failed_its_smoke_test_is_refused(project: Any) -> None:
    dossier = deploy(project.version(1, reply=[0.0, 0.0]), project.workspace, stage="dev")
    with pytest.raises(RefusedError):
        smoke_test(dossier, project.workspace, stage="dev")
    with pytest.raises(RefusedError, match=r"was rejected in dev: two-patients: reply\[0\] is 0.0, expected 203.4"):
        promote(dossier, project.workspace, to="prod")


def test_a_release_that_was_rejected_in_the_stage_does_not_come_back(project: Any, proven: Proven) -> None:
    dossier = promote(proven(1), project.workspace, to="prod")
    promote(proven(2), project.workspace, to="prod")
    with project.store() as opened:
        opened.stages.rejected("prod", dossier.need_release().id, "it was slow")
    with pytest.raises(RefusedError, match="was rejected in prod: it was slow"):
        promote(dossier, project.workspace, to="prod")


@pytest.mark.parametrize(("rmse", "held"), [(54.0, "diabetes:2"), (61.2, "diabetes:1")])
def test_a_metric_is_compared_with_what_the_place_holds(project: Any, proven: Proven, rmse: float, held: str) -> None:
    project.write(GATES.format("metric: {rmse: {not-worse-than: prod, tolerance: 2%}}"))
    promote(proven(1, metrics={"rmse": 53.4}), project.workspace, to="prod")
    worse = proven(2, metrics={"rmse": rmse})
    if held == "diabetes:1":
        with pytest.raises(RefusedError, match=r"rmse 61.2 is worse than diabetes:1 in prod \(53.4\) by 14.6 %"):
            promote(worse, project.workspace, to="prod")
    else:
        promote(worse, project.workspace, to="prod")
    assert project.agrees("prod") == held


def test_a_place_that_reports_nothing_is_not_a_stage_that_was_empty(project: Any, proven: Proven) -> None:
    project.write(GATES.format("metric: {rmse: {not-worse-than: prod, tolerance: 2%}}"))
    promote(proven(1, metrics={"rmse": 53.4}), project.workspace, to="prod")
    project.world.services.pop("diabetes-prod").stop()
    with pytest.raises(RefusedError, match=r"rmse 61.2 is worse than diabetes:1 in prod \(53.4\) by 14.6 %"):
        promote(proven(2, metrics={"rmse": 61.2}), project.workspace, to="prod")


def test_a_reply_of_another_form_is_stopped_before_prod(project: Any, proven: Proven) -> None:
    project.write(GATES.format("contract: {}"))
    promote(proven(1), project.workspace, to="prod")
    project.sample("two-patients", {"data": [[0.1, 0.2], [0.3, 0.4]]}, [[1.0, 2.0], [3.0, 4.0]])
    other = Contract(infer({"data": [[0.1, 0.2]]}), infer([[1.0, 2.0]]), "samples")
    broken = proven(2, reply=[[1.0, 2.0], [3.0, 4.0]], contract=other)
    with pytest.raises(RefusedError, match="its clients would break"):
        promote(broken, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_the_smoke_tests_timings_are_what_latency_judges(project: Any, proven: Proven) -> None:
    dossier = proven(1)
    project.write(GATES.format("latency: {p95: 0.001ms}"))
    with pytest.raises(RefusedError, match=r"latency: p95 .* ms in dev is above the largest allowed"):
        promote(dossier, project.workspace, to="prod")
    project.write(GATES.format("latency: {p95: 1h}"))
    promote(dossier, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_every_no_is_said_at_once(project: Any, proven: Proven) -> None:
    project.write(GATES.format("metric: {rmse: {max: 60}}, latency: {p95: 0.001ms}, approval: {}"))
    with pytest.raises(RefusedError) as caught:
        promote(proven(1, metrics={"rmse": 61}), project.workspace, to="prod")
    assert "metric: rmse 61" in caught.value.message
    assert "latency: p95" in caught.value.message
    assert "approval: not enough evidence" in caught.value.detail


def test_an_approval_is_waited_for_and_then_enough(project: Any, proven: Proven) -> None:
    project.write(GATES.format("approval: {}"))
    dossier = proven(1)
    with pytest.raises(WaitingError) as caught:
        promote(dossier, project.workspace, to="prod")
    assert "`stageway approve diabetes:1 --stage prod` (anyone with this workspace)" in caught.value.message
    with project.store() as opened:
        opened.decisions.put(approved(dossier))
    promote(dossier, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_a_rejection_stops_it(project: Any, proven: Proven) -> None:
    project.write(GATES.format("approval: {}"))
    dossier = proven(1)
    with project.store() as opened:
        opened.decisions.put(approved(dossier, "reject"))
    with pytest.raises(RefusedError, match=r"rejected by ann at .*: seen"):
        promote(dossier, project.workspace, to="prod")


def test_an_approval_of_the_evidence_as_it_was_seen_counts_for_it_only(project: Any, proven: Proven) -> None:
    project.write(GATES.format("approval: {}"))
    dossier = proven(1)
    with project.store() as opened:
        seen = evidence_digest(candidate(dossier, project.workspace, opened, "prod"))
        opened.decisions.put(approved(dossier, evidence="sha256:of-something-else"))
    with pytest.raises(WaitingError):
        promote(dossier, project.workspace, to="prod")
    with project.store() as opened:
        opened.decisions.put(approved(dossier, evidence=seen))
    promote(dossier, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_a_held_stage_names_who_holds_it_and_how_to_go_on(project: Any, proven: Proven) -> None:
    dossier = proven(1)
    with project.store() as opened:
        opened.holds.set("prod", "rolled back to diabetes:1", "ann")
    with pytest.raises(WaitingError, match="`stageway resume prod`"):
        promote(dossier, project.workspace, to="prod")
    with project.store() as opened:
        opened.holds.clear("prod")
    promote(dossier, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_the_evidence_may_come_from_the_store_alone(project: Any, proven: Proven) -> None:
    project.write(GATES.format("metric: {rmse: {max: 60}}, latency: {p95: 1h}"))
    bare = proven(1, metrics={"rmse": 50}).having(evidence=())
    promote(bare, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_the_evidence_may_come_from_the_dossier_alone(project: Any, proven: Proven) -> None:
    dossier = Dossier.from_json(proven(1).to_json())
    for file in project.workspace.state.glob("state.db*"):
        file.unlink()
    promote(dossier, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


@pytest.mark.parametrize("call", ["apply", "set_tags", "set_alias"])
def test_whoever_is_interrupted_makes_it_right_by_promoting_again(project: Any, proven: Proven, call: str) -> None:
    project.write(GATES.format("approval: {expires: 1h}"))
    dossier = proven(1)
    with project.store() as opened:
        opened.decisions.put(approved(dossier))
    project.world.faults[call] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        promote(dossier, project.workspace, to="prod")
    promote(dossier, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_what_was_placed_already_is_written_down_although_its_approval_expired_since(
    project: Any, proven: Proven
) -> None:
    dossier = proven(1)
    project.world.faults["set_alias"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        promote(dossier, project.workspace, to="prod")
    project.write(GATES.format("approval: {}"))
    promote(dossier, project.workspace, to="prod")
    assert project.agrees("prod") == "diabetes:1"


def test_conditions_can_be_asked_without_changing_anything(project: Any, proven: Proven) -> None:
    project.write(GATES.format("metric: {rmse: {max: 60}}, approval: {}"))
    dossier = proven(1, metrics={"rmse": 61})
    with project.store() as opened:
        judged = conditions(dossier, project.workspace, opened, "prod")
    assert [(one.gate, one.open) for one in judged] == [("smoke-test", True), ("metric", False), ("approval", False)]
    assert project.holds("prod") is None
