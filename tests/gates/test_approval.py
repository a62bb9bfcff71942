"""The gate ``approval`` counts people's decisions on exactly this release, stage and evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from stageway import plugins
from stageway.evidence import Evidence
from stageway.gates.base import No, NotEnough, Standing, Verdict, Yes, evidence_digest, refusals
from stageway.specs import GateSpec

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def said(decision: str = "approve", by: str = "ann", hours_ago: float = 1, **more: Any) -> dict[str, Any]:
    at = int((NOW - timedelta(hours=hours_ago)).timestamp() * 1000)
    return {"stage": "prod", "decision": decision, "by": by, "at": at, "attested": False, "note": "", **more}


def decided(*decisions: dict[str, Any]) -> dict[str, Any]:
    return {"approval": {"decisions": list(decisions)}}


def test_without_a_decision_it_waits_and_says_how_to_go_on(judge: Any) -> None:
    assert judge("approval", {}, {}, now=NOW) == NotEnough(
        "an approval", "`stageway approve diabetes:3 --stage prod`", "anyone with this workspace"
    )


def test_one_local_approval_opens_it_and_is_called_unattested(judge: Any) -> None:
    assert judge("approval", {}, decided(said(note="checked")), now=NOW) == Yes(
        "approved by ann at 2026-05-04 11:00 UTC (unattested): checked"
    )


def test_an_attested_approval_is_not_called_unattested(judge: Any) -> None:
    verdict = judge("approval", {}, decided(said(attested=True)), now=NOW)
    assert verdict == Yes("approved by ann at 2026-05-04 11:00 UTC")


def test_a_rejection_closes_it_and_says_who_when_and_why(judge: Any) -> None:
    verdict = judge("approval", {}, decided(said(by="bob"), said("reject", note="holiday freeze")), now=NOW)
    assert verdict == No("rejected by ann at 2026-05-04 11:00 UTC (unattested): holiday freeze")


@pytest.mark.parametrize(("first", "then", "kind"), [("reject", "approve", Yes), ("approve", "reject", No)])
def test_the_newest_word_of_a_person_counts(judge: Any, first: str, then: str, kind: type[Verdict]) -> None:
    decisions = decided(said(then, hours_ago=1), said(first, hours_ago=2))
    assert isinstance(judge("approval", {}, decisions, now=NOW), kind)


@pytest.mark.parametrize(("hours", "kind"), [(23.9, Yes), (24.1, NotEnough)])
def test_an_approval_expires(judge: Any, hours: float, kind: type[Verdict]) -> None:
    assert isinstance(judge("approval", {"expires": "24h"}, decided(said(hours_ago=hours)), now=NOW), kind)


def test_an_expired_approval_is_named(judge: Any) -> None:
    verdict = judge("approval", {"expires": "1h"}, decided(said(hours_ago=2)), now=NOW)
    assert "expired: ann at 2026-05-04 10:00 UTC" in verdict.what


@pytest.mark.parametrize(
    ("other", "kind"),
    [({}, Yes), ({"stage": "test"}, NotEnough), ({"release": "r-3"}, Yes), ({"release": "r-2"}, NotEnough)],
)
def test_a_decision_on_something_else_does_not_count(judge: Any, other: Any, kind: type[Verdict]) -> None:
    assert isinstance(judge("approval", {}, decided(said(**other)), now=NOW), kind)


@pytest.mark.parametrize(("rmse", "kind"), [(50.0, Yes), (50.1, NotEnough)])
def test_new_evidence_needs_a_new_decision(rmse: float, kind: type[Verdict]) -> None:
    seen = {"metrics": Evidence(kind="metrics", facts={"rmse": 50.0}, release="r-3")}
    decision = said(evidence=evidence_digest(seen))
    now_there = {"metrics": Evidence(kind="metrics", facts={"rmse": rmse}, release="r-3")}
    now_there |= {"approval": Evidence(kind="approval", facts={"decisions": [decision]}, release="r-3")}
    gate = plugins.load("gate", "approval")
    assert isinstance(gate(gate.Options()).judge(now_there, Standing("prod", "diabetes:3"), NOW), kind)


@pytest.mark.parametrize(
    ("options", "decisions", "kind"),
    [
        ({"count": 2}, [said(attested=True)], NotEnough),
        ({"count": 2}, [said(attested=True), said(attested=True, hours_ago=2)], NotEnough),
        ({"count": 2}, [said(attested=True), said(attested=True, by="bob")], Yes),
        ({"count": 2}, [said(), said(by="bob")], NotEnough),
        ({"from": ["ann"]}, [said()], NotEnough),
        ({"from": ["ann"]}, [said(attested=True)], Yes),
        ({"from": ["bob"]}, [said(attested=True)], NotEnough),
    ],
)
def test_what_needs_proof_is_not_satisfied_without_it(
    judge: Any, options: Any, decisions: Any, kind: type[Verdict]
) -> None:
    assert isinstance(judge("approval", options, decided(*decisions), now=NOW), kind)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"from": ["release-engineers"]}, "approval: from: release-engineers: who approves cannot be proven"),
        ({"count": 2}, "approval: count: 2: that two approvals come from two people cannot be proven"),
    ],
)
def test_a_plan_that_needs_keys_is_refused_with_an_honest_alternative(options: Any, says: str) -> None:
    [sentence] = refusals([GateSpec(name="approval", options=options)], ["dev", "prod"])
    assert sentence.startswith(says)
    assert "write `approval: {}`" in sentence
    assert "unattested" in sentence


def test_a_plain_approval_is_not_refused() -> None:
    assert refusals([GateSpec(name="approval", options={"expires": "24h"})], ["dev", "prod"]) == []


@pytest.mark.parametrize("options", [{"count": 0}, {"from": []}, {"expires": 24}, {"by": "ann"}])
def test_options_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(ValidationError):
        plugins.load("gate", "approval").Options.model_validate(options)
