"""A real service is measured with its samples, within the budget."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from stageway import images
from stageway.bundle import Bundle, trial
from stageway.errors import RefusedError
from stageway.profiling import measure
from stageway.profiling.load import Seen, send
from stageway.samples import Sample

DIES = "import os\n\n\ndef run(data):\n    os.kill(os.getppid(), 9)\n"
FAILS = "import json\n\n\ndef run(data):\n    return 1 / json.loads(data)['data'][0]\n"
SLEEPS = "import time\n\n\ndef run(data):\n    time.sleep(600)\n"

ONE = Sample("one", json.dumps({"data": [1]}).encode())
ZERO = Sample("zero", json.dumps({"data": [0]}).encode())


def build(times: Any, script: str | None = None) -> Bundle:
    if script is not None:
        times.write("score.py", script)
    shelf = times.shelf
    return images.build(times.workspace(), shelf.add(), shelf)


def test_a_profile_says_times_throughput_memory_and_cpu(times: Any) -> None:
    with trial.serve(build(times)) as service:
        found, problem = measure(service, [ONE], budget=1.0, image_digest="sha256:image")
    assert problem == ""
    assert found.requests > 10
    assert found.errors == 0
    assert found.service_ms_p50 is not None
    assert found.service_ms_p95 is not None
    assert 0 < found.service_ms_p50 <= found.service_ms_p95
    assert found.throughput_rps is not None
    assert found.throughput_rps > 0
    assert found.cpu_per_request_ms is not None
    assert 0 <= found.cpu_per_request_ms < 1000
    assert 0 < found.memory_idle_mib <= found.memory_peak_mib
    assert found.recommended_memory_mib >= found.memory_peak_mib * 1.3
    assert found.recommended_cpu is not None
    assert found.recommended_cpu >= 0.1
    assert found.start_seconds > 0
    assert found.image_digest == "sha256:image"
    assert "cores" in found.machine


def test_without_samples_only_start_and_memory_are_measured(times: Any) -> None:
    with trial.serve(build(times)) as service:
        found, _ = measure(service, [], budget=60.0, image_digest="")
    assert (found.requests, found.errors) == (0, 0)
    assert found.service_ms_p50 is None
    assert found.throughput_rps is None
    assert found.recommended_cpu is None
    assert found.recommended_memory_mib >= 128
    assert "p50" not in found.sentence()
    assert "take memory" in found.sentence()


def test_failed_requests_are_counted_and_one_is_quoted(times: Any) -> None:
    with trial.serve(build(times, FAILS)) as service:
        found, problem = measure(service, [ONE, ZERO], budget=0.6, image_digest="")
    assert 0 < found.errors < found.requests
    assert problem.startswith("zero: status 500: ")


def test_a_reply_that_never_comes_does_not_hold_the_measurement(times: Any) -> None:
    with trial.serve(build(times, SLEEPS)) as service:
        found, _ = measure(service, [ONE], budget=0.6, image_digest="")
    assert (found.requests, found.service_ms_p50) == (0, None)


def test_a_service_that_dies_while_it_is_measured_is_refused(times: Any) -> None:
    bundle, sentence = build(times, DIES), "the service ended while it was measured"
    with trial.serve(bundle) as service, pytest.raises(RefusedError, match=sentence):
        measure(service, [ONE], budget=5.0, image_digest="")


def test_each_client_sends_every_sample_in_turn(times: Any) -> None:
    with trial.serve(build(times, FAILS)) as service:
        seen = send(service, [ONE, ZERO], until=time.monotonic() + 60, clients=3, at_most=4)
    assert (seen.requests, seen.errors, len(seen.seconds)) == (12, 6, 6)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 51.0), (0.95, 96.0), (1.0, 100.0)])
def test_percentiles_are_of_good_replies(share: float, expected: float) -> None:
    seen = Seen(seconds=[number / 1000 for number in range(100, 0, -1)], errors=7)
    assert seen.percentile_ms(share) == pytest.approx(expected)
    assert Seen(errors=7).percentile_ms(share) is None
