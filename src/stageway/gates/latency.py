"""The gate ``latency``: how fast the candidate answered, against limits and against what a stage holds.

It reads the smoke test of the stage before; where that has no timings, the profile.
``latency: {p95: 100ms, not-worse-than: prod, tolerance: 10%}``
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import Field, model_validator

from stageway.evidence import Evidence
from stageway.gates.base import Incumbent, No, NotEnough, Standing, Verdict, Yes, all_of
from stageway.gates.words import numbers, percent
from stageway.specs import Duration, Share, Spec

SOURCES = ("smoke", "profile")
KEYS = {("smoke", "p50"): "latency_ms_p50", ("smoke", "p95"): "latency_ms_p95"}
KEYS |= {("profile", "p50"): "service_ms_p50", ("profile", "p95"): "service_ms_p95"}
ROUNDING = 1e-9


class Limits(Spec):
    """The largest times that may pass, and the stage to compare with."""

    p50: Duration | None = Field(None, description="half of the requests took at most this")
    p95: Duration | None = Field(None, description="19 of 20 requests took at most this")
    not_worse_than: str | None = Field(None, description="stage whose release must not be faster than the candidate")
    tolerance: Share = Field(0.0, description="by how much it may be slower than that release")

    @model_validator(mode="after")
    def _says_something(self) -> Limits:
        if self.p50 is None and self.p95 is None and self.not_worse_than is None:
            raise ValueError("write at least one of p50, p95, not-worse-than")
        if self.tolerance and self.not_worse_than is None:
            raise ValueError("tolerance needs not-worse-than: STAGE, the release to compare with")
        return self


class LatencyGate:
    """Judges measured latencies."""

    Options = Limits

    def __init__(self, options: Limits) -> None:
        self.options = options

    def needs(self) -> Sequence[str]:
        return SOURCES

    def refuses(self, stages: Sequence[str]) -> str | None:
        """Refuse a comparison with a stage that the pipeline does not have."""
        stage = self.options.not_worse_than
        if stage is None or stage in stages:
            return None
        return f"not-worse-than: no stage is called {stage!r}; stages: {', '.join(stages)}"

    def judge(self, evidence: Mapping[str, Evidence], incumbent: Standing, now: datetime) -> Verdict:
        """Say yes when every limit holds."""
        parts: list[Verdict] = []
        for point, limit in (("p50", self.options.p50), ("p95", self.options.p95)):
            if limit is not None:
                parts.append(_within(point, limit * 1000, evidence, incumbent))
        if self.options.not_worse_than is not None:
            stage = self.options.not_worse_than
            parts.append(_compare(evidence, incumbent, incumbent.incumbents.get(stage), stage, self.options.tolerance))
        return all_of(parts)


def _measured(evidence: Mapping[str, Evidence], source: str, point: str) -> float | None:
    value = evidence[source].facts.get(KEYS[source, point]) if source in evidence else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _where(source: str, evidence: Mapping[str, Evidence]) -> str:
    stage = evidence[source].stage
    return "in the profile" if source == "profile" else f"in {stage}" if stage else "in the smoke test"


def _none(label: str) -> NotEnough:
    return NotEnough(
        f"measured latencies of {label}",
        "add samples, so that `stageway smoke-test` and `stageway profile` have requests to time",
        "who owns the model",
    )


def _within(point: str, limit: float, evidence: Mapping[str, Evidence], standing: Standing) -> Verdict:
    for source in SOURCES:
        value = _measured(evidence, source, point)
        if value is not None:
            said, limit_said = numbers(value, limit)
            measured = f"{point} {said} ms {_where(source, evidence)}"
            if value <= limit:
                return Yes(f"{measured} is at most {limit_said} ms")
            return No(f"{measured} is above the largest allowed, {limit_said} ms")
    return _none(standing.label)


def _compare(
    evidence: Mapping[str, Evidence], standing: Standing, other: Incumbent | None, stage: str, tolerance: float
) -> Verdict:
    """Compare like with like: two smoke tests of one stage, else two profiles of one machine."""
    if other is None:
        return Yes(f"{stage} is empty")
    for source, same in (("smoke", "stage"), ("profile", "machine")):
        mine, theirs = _measured(evidence, source, "p95"), _measured(other.evidence, source, "p95")
        if mine is None or theirs is None:
            continue
        if same == "stage" and evidence[source].stage != other.evidence[source].stage:
            continue
        if same == "machine" and evidence[source].facts.get(same) != other.evidence[source].facts.get(same):
            continue
        said, other_said = numbers(mine, theirs)
        measured = f"p95 {said} ms {_where(source, evidence)}"
        against = f"{other.label} of {stage} ({other_said} ms)"
        if mine <= theirs:
            return Yes(f"{measured} is not slower than {against}")
        share = (mine - theirs) / theirs if theirs > 0 else math.inf
        if share <= tolerance + ROUNDING:
            return Yes(f"{measured} is slower than {against} by {percent(share)}, within {percent(tolerance)}")
        allowed = f", more than {percent(tolerance)}" if tolerance else ""
        return No(f"{measured} is slower than {against} by {percent(share, tolerance)}{allowed}")
    if not any(_measured(evidence, source, "p95") is not None for source in SOURCES):
        return _none(standing.label)
    return NotEnough(
        f"latencies of {other.label} of {stage} measured where those of {standing.label} were",
        "remove not-worse-than for one version, or profile both on one machine",
        "who owns stageway.yml",
    )
