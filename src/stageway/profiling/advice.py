"""From what was measured to what a stage should give one replica: cores in tenths, memory in steps of 64 MiB."""

from __future__ import annotations

import math

TARGET_USE = 0.7
"""How busy a replica should be at the measured throughput; the autoscalers of v1 aimed at the same 70 %."""
LEAST_CPU = 0.1
CPU_STEP = 0.1
HEAD_ROOM = 1.3
LEAST_MEMORY_MIB = 128
MEMORY_STEP_MIB = 64


def cpu(cpu_per_request_ms: float, throughput_rps: float, cores: int) -> float:
    """Return the cores that serve *throughput_rps* at 70 % use, in tenths, and not more than there are."""
    busy = cpu_per_request_ms / 1000 * throughput_rps
    steps = math.ceil(round(busy / TARGET_USE / CPU_STEP, 6))
    return round(min(max(steps * CPU_STEP, LEAST_CPU), float(cores)), 1)


def memory_mib(peak_mib: float) -> int:
    """Return the peak and 30 % more, rounded up."""
    steps = math.ceil(round(peak_mib * HEAD_ROOM / MEMORY_STEP_MIB, 6))
    return max(steps * MEMORY_STEP_MIB, LEAST_MEMORY_MIB)
