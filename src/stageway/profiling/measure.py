"""Measure a started service with its samples within a budget: half of it one request after another, half together."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from stageway.bundle.trial import Trial
from stageway.evidence import Profile
from stageway.profiling import advice
from stageway.profiling.load import Seen, send
from stageway.profiling.usage import Usage
from stageway.samples import Sample

CLIENTS = 4
WARM_UP = 0.2


def measure(trial: Trial, samples: Sequence[Sample], *, budget: float, image_digest: str) -> tuple[Profile, str]:
    """Return the profile, and one of the problems in words where requests failed (else an empty string).

    Takes *budget* seconds, the service's start counted in, but never less than half of it for requests. Without
    samples only start and memory are measured, at once.
    """
    usage = Usage(trial.pid)
    idle = usage.memory_mib()
    window = max(budget - trial.start_seconds, budget / 2) if samples else 0.0
    before = usage.cpu_seconds()
    alone, together = _loads(trial, samples, usage, window) if samples else (Seen(), Seen())
    requests = alone.requests + together.requests
    cpu_ms = (usage.cpu_seconds() - before) * 1000 / requests if requests else None
    throughput = len(together.seconds) / together.elapsed if together.seconds else None
    profile = Profile(
        service_ms_p50=_round(alone.percentile_ms(0.50)),
        service_ms_p95=_round(alone.percentile_ms(0.95)),
        throughput_rps=_round(throughput),
        memory_idle_mib=round(idle, 1),
        memory_peak_mib=round(usage.peak_mib, 1),
        start_seconds=round(trial.start_seconds, 3),
        requests=requests,
        errors=alone.errors + together.errors,
        cpu_per_request_ms=_round(cpu_ms),
        recommended_cpu=None if cpu_ms is None or throughput is None else advice.cpu(cpu_ms, throughput, _cores()),
        recommended_memory_mib=advice.memory_mib(usage.peak_mib),
        budget_seconds=budget,
        machine=machine(),
        image_digest=image_digest,
    )
    return profile, alone.problem or together.problem


def _loads(trial: Trial, samples: Sequence[Sample], usage: Usage, window: float) -> tuple[Seen, Seen]:
    """Each sample once to warm up, then alone, then together; the warm-up's errors count, its times do not."""
    start = time.monotonic()
    with usage.watching():
        warm = send(trial, samples, until=start + window * WARM_UP, at_most=len(samples))
        alone = send(trial, samples, until=start + window * (1 + WARM_UP) / 2)
        together = send(trial, samples, until=start + window, clients=CLIENTS)
    alone.errors += warm.errors
    alone.problem = warm.problem or alone.problem
    return alone, together


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _cores() -> int:
    return os.cpu_count() or 1


def machine() -> str:
    """Name the kind of machine, so that profiles of different ones are not compared."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{platform.system()} {platform.machine()}, {model}, {_cores()} cores"
