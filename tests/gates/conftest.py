"""Short ways to say what is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from stageway import plugins
from stageway.evidence import Evidence
from stageway.gates.base import Incumbent, Standing, Verdict

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)

Facts = Mapping[str, Mapping[str, Any]]
Judge = Callable[..., Verdict]


def evidence(facts: Facts, release: str, stage: str | None = None) -> dict[str, Evidence]:
    """Turn ``{kind: facts}`` into evidence; what a smoke test saw belongs to *stage*."""
    return {
        kind: Evidence(kind=kind, facts=dict(one), release=release, stage=stage if kind == "smoke" else None)
        for kind, one in facts.items()
    }


@pytest.fixture
def judge() -> Judge:
    """Judge ``diabetes:3`` before ``prod`` with a gate's options as they are written in the file."""

    def judging(
        gate: str,
        options: Any,
        candidate: Facts,
        prod: Facts | None = None,
        *,
        now: datetime = NOW,
        prod_smoke_in: str = "dev",
    ) -> Verdict:
        gate_class = plugins.load("gate", gate)
        incumbents = (
            {} if prod is None else {"prod": Incumbent("diabetes:2", "r-2", evidence(prod, "r-2", prod_smoke_in))}
        )
        made = gate_class(gate_class.Options.model_validate(options))
        verdict: Verdict = made.judge(
            evidence(candidate, "r-3", "dev"), Standing("prod", "diabetes:3", incumbents), now
        )
        return verdict

    return judging
