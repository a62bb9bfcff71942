"""One evaluator judges all gates of a stage, ours and others'."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stageway.errors import ConfigError
from stageway.evidence import Evidence
from stageway.gates.base import Judged, No, NotEnough, Standing, Yes, all_of, assess, evidence_digest, refusals
from stageway.specs import GateSpec

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def test_every_gate_of_a_stage_is_judged_in_order() -> None:
    gates = [GateSpec(name="metric", options={"rmse": {"max": 60}}), GateSpec(name="approval")]
    evidence = {"metrics": Evidence(kind="metrics", facts={"rmse": 61.0})}
    judged = assess(gates, evidence, Standing("prod", "diabetes:3"), NOW)
    assert [one.sentence() for one in judged] == [
        "metric: rmse 61 is above the largest allowed, 60",
        "approval: not enough evidence, needs an approval; `stageway approve diabetes:3 --stage prod`",
    ]


def test_options_of_a_stored_definition_are_read_again() -> None:
    from stageway import plugins

    options = plugins.load("gate", "metric").Options.model_validate(
        {"rmse": {"max": 60, "not-worse-than": "prod", "tolerance": "2%"}}
    )
    for again in (options, options.model_dump(mode="json"), options.model_dump(mode="json", by_alias=True)):
        gates = [GateSpec(name="metric", options=again)]
        evidence = {"metrics": Evidence(kind="metrics", facts={"rmse": 50.0})}
        assert assess(gates, evidence, Standing("prod", "diabetes:3"), NOW)[0].open


def test_wrong_options_are_a_persons_mistake() -> None:
    with pytest.raises(ConfigError, match=r"gates\.metric\.rmse: write at least one of min, max, not-worse-than"):
        assess([GateSpec(name="metric", options={"rmse": {}})], {}, Standing("prod", "diabetes:3"), NOW)


@pytest.mark.parametrize("gate", ["metric", "latency"])
def test_a_comparison_with_a_stage_that_does_not_exist_is_refused(gate: str) -> None:
    options = {"not-worse-than": "prud"}
    spec = GateSpec(name=gate, options={"rmse": options} if gate == "metric" else options)
    [sentence] = refusals([spec], ["dev", "prod"])
    assert "no stage is called 'prud'; stages: dev, prod" in sentence
    assert refusals([spec], ["dev", "prud"]) == []


def test_a_no_goes_before_what_is_missing_and_that_before_a_yes() -> None:
    yes, no, missing = Yes("a"), No("b"), NotEnough("c", "d", "e")
    assert all_of([yes, missing, no]) == No("b")
    assert all_of([yes, missing]) == missing
    assert all_of([yes, yes]) == Yes("a; a")


def test_a_judged_gate_is_open_for_a_yes_only() -> None:
    assert Judged("metric", Yes("")).open
    assert not Judged("metric", No("")).open
    assert not Judged("metric", NotEnough("", "")).open


def test_the_digest_of_what_is_decided_about_leaves_out_the_decisions() -> None:
    metrics = {"metrics": Evidence(kind="metrics", facts={"rmse": 1.0})}
    decisions = {"approval": Evidence(kind="approval", facts={"decisions": [{"by": "ann"}]})}
    assert evidence_digest(metrics) == evidence_digest({**metrics, **decisions})
    assert evidence_digest(metrics) != evidence_digest({})
