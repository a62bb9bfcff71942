"""Content-addressed facts about a release: what gates judge.

Kinds and the keys that gates may rely on:

``metrics``   {name: float} as registered with the version
``contract``  Contract.to_json()
``profile``   Profile.model_dump()
``acceleration``  {methods, tolerance, compared: {method: {rows, largest_difference, ...}}, generated, versions, ...}:
              how the ONNX form that answers in the model's place was found to agree with it; only where there is one
``smoke``     SmokeResult.model_dump(); one per stage
``approval``  {"decisions": [{stage, decision, by, at, attested, note}]}
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import field_validator

from stageway.facts import Fact, digest


class Evidence(Fact):
    """One kind of knowledge about one release (``None`` before it is packaged), gathered in *stage* if in one."""

    kind: str
    facts: dict[str, Any]
    release: str | None = None
    stage: str | None = None

    @field_validator("facts")
    @classmethod
    def _is_json(cls, facts: dict[str, Any]) -> dict[str, Any]:
        return {name: _without_nan(value) for name, value in facts.items()}

    @property
    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))


def _without_nan(value: Any) -> Any:
    """Return *value* with ``NaN`` and ``Infinity`` as text: JSON has no numbers for them, and digests are stable."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, (list, tuple)) else value


class Profile(Fact):
    """What the service needs, measured on this machine within a budget. Times in ms, memory in MiB, CPU in cores.

    Without samples there are no requests: what only requests can tell is ``None``. *image_digest* is what was measured.
    """

    service_ms_p50: float | None = None
    service_ms_p95: float | None = None
    throughput_rps: float | None = None
    memory_peak_mib: float
    memory_idle_mib: float
    start_seconds: float
    requests: int
    errors: int
    cpu_per_request_ms: float | None = None
    recommended_cpu: float | None = None
    recommended_memory_mib: int
    budget_seconds: float
    machine: str = ""
    image_digest: str = ""

    def sentence(self) -> str:
        """Say the profile in one line; what could not be measured is left out."""
        found: list[str] = []
        if self.service_ms_p50 is not None and self.service_ms_p95 is not None:
            found.append(f"p50 {self.service_ms_p50:.2f} ms, p95 {self.service_ms_p95:.2f} ms")
        if self.throughput_rps is not None:
            found.append(f"{self.throughput_rps:.0f} requests/s")
        found.append(f"starts in {self.start_seconds:.1f} s, peak {self.memory_peak_mib:.0f} MiB")
        cpu = f"cpu {self.recommended_cpu:g}, " if self.recommended_cpu is not None else ""
        return f"{', '.join(found)}; take {cpu}memory {self.recommended_memory_mib} MiB"


class SmokeCheck(Fact):
    """One sample (or built-in check) and what came of it; *problem* is a sentence, empty when it passed."""

    name: str
    passed: bool
    problem: str = ""
    latency_ms: float | None = None


class SmokeResult(Fact):
    """What a smoke test saw of one stage's endpoint."""

    endpoint: str
    passed: bool
    checks: tuple[SmokeCheck, ...]
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    requests: int = 0
    errors: int = 0

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(f"{check.name}: {check.problem}" for check in self.checks if not check.passed)
