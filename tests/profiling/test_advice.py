"""From what was measured to what is recommended."""

from __future__ import annotations

import pytest

from stageway.profiling import advice


@pytest.mark.parametrize(
    ("cpu_ms", "rate", "cores", "expected"),
    [
        (0.4, 100.0, 8, 0.1),
        (10.0, 70.0, 8, 1.0),
        (10.0, 71.0, 8, 1.1),
        (10.0, 0.0, 8, 0.1),
        (1000.0, 10.0, 4, 4.0),
    ],
)
def test_cpu_is_enough_for_the_throughput_at_70_percent_use(
    cpu_ms: float, rate: float, cores: int, expected: float
) -> None:
    assert advice.cpu(cpu_ms, rate, cores) == expected


@pytest.mark.parametrize(("peak", "expected"), [(1.0, 128), (98.0, 128), (99.0, 192), (150.0, 256), (1000.0, 1344)])
def test_memory_is_the_peak_and_30_percent_in_steps_of_64_mib(peak: float, expected: int) -> None:
    assert advice.memory_mib(peak) == expected
    assert advice.memory_mib(peak) >= peak * advice.HEAD_ROOM
