"""The gate ``latency`` flips with the measured time, and compares like with like only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stageway import plugins
from stageway.gates.base import No, NotEnough, Verdict, Yes


def smoke(p95: float | None, p50: float | None = None) -> dict[str, Any]:
    return {"smoke": {"latency_ms_p95": p95, "latency_ms_p50": p50}}


def profile(p95: float, machine: str = "this") -> dict[str, Any]:
    return {"profile": {"service_ms_p95": p95, "service_ms_p50": p95 / 2, "machine": machine}}


@pytest.mark.parametrize(
    ("measured", "answer"),
    [
        (99.0, Yes("p95 99 ms in dev is at most 100 ms")),
        (100.0, Yes("p95 100 ms in dev is at most 100 ms")),
        (100.5, No("p95 100.5 ms in dev is above the largest allowed, 100 ms")),
    ],
)
def test_a_limit_may_be_reached(judge: Any, measured: float, answer: Verdict) -> None:
    assert judge("latency", {"p95": "100ms"}, smoke(measured)) == answer


@pytest.mark.parametrize(("p50", "kind"), [(9.0, Yes), (11.0, No)])
def test_p50_has_a_limit_of_its_own(judge: Any, p50: float, kind: type[Verdict]) -> None:
    assert isinstance(judge("latency", {"p50": "10ms", "p95": "1s"}, smoke(20.0, p50)), kind)


def test_the_smoke_test_goes_before_the_profile(judge: Any) -> None:
    facts = {**smoke(5.0), **profile(500.0)}
    assert isinstance(judge("latency", {"p95": "100ms"}, facts), Yes)


def test_without_timings_in_the_smoke_test_the_profile_counts(judge: Any) -> None:
    assert judge("latency", {"p95": "100ms"}, {**smoke(None), **profile(120.0)}) == No(
        "p95 120 ms in the profile is above the largest allowed, 100 ms"
    )


@pytest.mark.parametrize("facts", [{}, smoke(None)])
@pytest.mark.parametrize("options", [{"p95": "100ms"}, {"not-worse-than": "prod"}])
def test_without_any_timing_it_is_not_enough(judge: Any, facts: Any, options: Any) -> None:
    verdict = judge("latency", options, facts, smoke(1.0))
    assert isinstance(verdict, NotEnough)
    assert "diabetes:3" in verdict.what


@pytest.mark.parametrize(
    ("mine", "kind", "says"),
    [
        (10.0, Yes, "not slower than diabetes:2 of prod (10 ms)"),
        (10.9, Yes, "by 9 %, within 10 %"),
        (11.5, No, "by 15 %, more than 10 %"),
    ],
)
def test_not_worse_than_a_stage(judge: Any, mine: float, kind: type[Verdict], says: str) -> None:
    verdict = judge("latency", {"not-worse-than": "prod", "tolerance": "10%"}, smoke(mine), smoke(10.0))
    assert isinstance(verdict, kind)
    assert says in str(verdict)


def test_times_of_different_stages_are_not_compared(judge: Any) -> None:
    options = {"not-worse-than": "prod"}
    assert isinstance(judge("latency", options, smoke(99.0), smoke(10.0), prod_smoke_in="prod"), NotEnough)


@pytest.mark.parametrize(("machine", "kind"), [("this", No), ("another", NotEnough)])
def test_profiles_of_different_machines_are_not_compared(judge: Any, machine: str, kind: type[Verdict]) -> None:
    assert isinstance(judge("latency", {"not-worse-than": "prod"}, profile(99.0), profile(10.0, machine)), kind)


def test_an_empty_stage_is_no_obstacle(judge: Any) -> None:
    assert judge("latency", {"not-worse-than": "prod"}, smoke(99.0)) == Yes("prod is empty")


@pytest.mark.parametrize("options", [{}, {"p95": 100}, {"p95": "1s", "tolerance": "2%"}, {"p99": "1s"}])
def test_options_that_cannot_be_judged_are_refused(options: Any) -> None:
    with pytest.raises(ValidationError):
        plugins.load("gate", "latency").Options.model_validate(options)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slow=st.floats(0, 1e6), fast=st.floats(0, 1e6), theirs=st.floats(0, 1e6))
def test_a_faster_release_never_closes_an_open_gate(judge: Any, slow: float, fast: float, theirs: float) -> None:
    slow, fast = max(slow, fast), min(slow, fast)
    options = {"p95": "1s", "not-worse-than": "prod", "tolerance": "5%"}
    if isinstance(judge("latency", options, smoke(slow), smoke(theirs)), Yes):
        assert isinstance(judge("latency", options, smoke(fast), smoke(theirs)), Yes)
