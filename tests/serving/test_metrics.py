"""What a service counts: right over all workers, never going back, in words that Prometheus's own parser reads."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from stageway.serving.control import ControlFile
from stageway.serving.metrics import DROPPED, LATENCIES, NAMED, Counts, Meter

SCRIPT = """
import json, os
def run(data):
    given = json.loads(data)
    if given == "fail":
        raise ValueError("no")
    return os.getpid()
"""
Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Return each sample under its name and its labels' values, in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in prometheus(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def service(start: Any) -> Any:
    given = ["--workers", "2", "--release", "3f2a", "--model-version", "iris:7", "--max-body", "1000"]
    return start(SCRIPT, *given, environment={"SERVICE_NAME": "flowers", "SERVICE_VERSION": "2.1"}).ready()


def scraped(service: Any) -> Samples:
    return samples(service.ask("GET", "/metrics").body.decode())


def test_replies_are_counted_by_path_and_status_over_all_workers(service: Any, until: Any) -> None:
    before = scraped(service)
    counted = "stageway_request_duration_seconds_count", "/score"
    who = {service.score(number).json for number in range(30)}
    assert service.score("fail").status == 500
    assert service.ask("DELETE", "/score").status == 405
    assert service.score(b"x" * 2000).status == 413
    # A reply arrives a moment before it is counted.
    until(lambda: scraped(service)[counted] - before.get(counted, 0.0) >= 33)
    after = scraped(service)

    def more(*key: str) -> float:
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert len(who) == 2
    assert more("stageway_requests_total", "/score", "200") == 30
    assert more("stageway_requests_total", "/score", "500") == 1
    assert more("stageway_requests_total", "/score", "405") == 1
    assert more("stageway_requests_total", "/score", "413") == 1
    assert more("stageway_rejected_total", "body_size") == 1
    assert more("stageway_request_duration_seconds_count", "/score") == 33
    assert more("stageway_request_duration_seconds_bucket", "+Inf", "/score") == 33
    assert more("stageway_run_duration_seconds_count") == 31
    assert more("stageway_run_failed_total") == 1
    assert more("stageway_batch_requests_count") == 31
    assert more("stageway_batch_rows_sum") == 31
    assert after["stageway_workers_ready",] == after["stageway_workers",] == 2
    assert after["stageway_requests_in_flight",] == after["stageway_queue_length",] == 0
    assert after["process_resident_memory_bytes",] > 2 * 10_000_000
    assert after["process_cpu_seconds_total",] > 0


def test_the_service_says_what_it_is(service: Any) -> None:
    found = [key for key in scraped(service) if key[0] == "stageway_service_info"]
    assert found == [("stageway_service_info", "iris", "7", "3f2a", "flowers", "2.1")]


def test_neither_probes_nor_scrapes_are_counted_and_unknown_paths_make_no_labels(service: Any, until: Any) -> None:
    before = scraped(service)
    for number in range(20):
        assert service.ask("GET", f"/wp-admin/{number}").status == 404
        assert service.ask("GET", "/").status == 200
    unknown = "stageway_requests_total", "other", "404"
    until(lambda: scraped(service)[unknown] - before.get(unknown, 0) >= 20)
    after = scraped(service)
    assert after[unknown] - before.get(unknown, 0) == 20
    paths = {key[1] for key in after if key[0] == "stageway_requests_total"}
    assert "/" not in paths
    assert "/metrics" not in paths
    assert not any("admin" in path for path in paths)


def test_who_asks_for_openmetrics_gets_it(service: Any) -> None:
    plain = service.ask("GET", "/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    reply = service.ask("GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in open_metrics(reply.body.decode())}
    assert {"stageway_requests", "stageway_request_duration_seconds", "stageway_workers_ready"} <= names


def test_every_name_is_in_the_guide(service: Any) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    service.score(1)
    for family in prometheus(service.ask("GET", "/metrics").body.decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert re.search(rf"`{name}[`{{]", guide), name


def test_a_worker_that_is_killed_takes_no_count_with_it(start: Any, until: Callable[..., None]) -> None:
    service = start(SCRIPT, "--workers", "2").ready()
    seen: list[Samples] = []
    ending = threading.Event()

    def scrape() -> None:
        while not ending.wait(0.01):
            with contextlib.suppress(OSError, ValueError):
                seen.append(scraped(service))

    scraping = threading.Thread(target=scrape)
    scraping.start()
    try:
        for _ in range(2):
            victim = service.score(1).json
            starts = scraped(service)["stageway_worker_starts_total",]
            os.kill(victim, signal.SIGKILL)
            until(lambda starts=starts: seen and seen[-1]["stageway_worker_starts_total",] > starts)
            until(lambda: seen[-1]["stageway_workers_ready",] == 2)
            assert service.score(2).status == 200
    finally:
        ending.set()
        scraping.join()
    assert len(seen) > 5
    for earlier, later in itertools.pairwise(seen):
        for key, value in earlier.items():
            if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert later[key] >= value, key
    assert seen[-1]["stageway_worker_starts_total",] == 4
    assert scraped(service)["stageway_requests_total", "/score", "200"] == 4


def test_what_waits_behind_a_slow_run_is_seen_while_it_waits(
    start: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = """
import os, time
def run(data):
    while not os.path.exists(data):
        time.sleep(0.01)
    return 1
"""
    service = start(script).ready()
    gate = tmp_path / "gate"
    asking = [threading.Thread(target=service.score, args=(str(gate).encode(),)) for _ in range(4)]
    for thread in asking:
        thread.start()
    until(lambda: scraped(service)["stageway_requests_in_flight",] == 4)
    assert scraped(service)["stageway_queue_length",] == 3
    gate.write_text("")
    for thread in asking:
        thread.join()
    until(lambda: scraped(service)["stageway_requests_in_flight",] == 0)
    assert scraped(service)["stageway_queue_length",] == 0


def test_a_client_that_goes_away_is_counted_as_that(service: Any, until: Callable[..., None]) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as gone:
        gone.connect(str(service.uds))
        gone.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\nhalf")
    until(lambda: scraped(service).get(("stageway_requests_total", "/score", "499")) == 1)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlFile]:
    with contextlib.closing(ControlFile.create(tmp_path / "control", 2)) as control:
        yield control


def summed(meter: Meter, control: ControlFile, name: str) -> Any:
    (family,) = [family for family in meter.families(control) if family.name == name]
    return family.samples


def test_values_fall_into_the_bucket_of_the_first_bound_they_do_not_pass(control: ControlFile) -> None:
    meter = Meter(control.path, control.slots, 0)
    meter.know(["/score"])
    for seconds in (0.0, LATENCIES[0], LATENCIES[0] * 1.01, LATENCIES[-1], 1e9):
        meter.count("/score", 200, seconds)
    ((_, counts),) = summed(meter, control, "stageway_request_duration_seconds")
    assert isinstance(counts, Counts)
    assert counts.counts == (2, 1, *[0] * (len(LATENCIES) - 3), 1, 1)
    assert counts.sum == pytest.approx(1e9 + 60.0 + 0.001005)


def test_a_slot_is_counted_on_by_its_next_holder_also_with_other_paths(control: ControlFile) -> None:
    first = Meter(control.path, control.slots, 0)
    first.know(["/score", "/old"])
    first.count("/old", 200, 0.1)
    first.count("/score", 200, 0.1)
    first.add(DROPPED, 3)
    other = Meter(control.path, control.slots, 1)
    other.know(["/new", "/score"], "/prefix")
    for path in ("/new", "/score", "/prefix/score", "/elsewhere"):
        other.count(path, 200, 0.1)
    successor = Meter(control.path, control.slots, 0)
    successor.know(["/score"])
    successor.count("/score", 201, 0.1)
    found = {tuple(labels.values()): value for labels, value in summed(other, control, "stageway_requests")}
    assert found == {
        ("/old", "200"): 1,
        ("/score", "200"): 3,
        ("/score", "201"): 1,
        ("/new", "200"): 1,
        ("other", "200"): 1,
    }
    assert summed(successor, control, "stageway_collection_dropped") == [({}, 3)]
    assert first.born == successor.born


def test_a_file_of_another_version_is_begun_afresh(control: ControlFile) -> None:
    Path(control.path + ".meter").write_bytes(b"another!" * 100_000)
    meter = Meter(control.path, control.slots, 0)
    assert summed(meter, control, "stageway_requests") == []
    assert summed(meter, control, "stageway_worker_starts") == [({}, 1)]


def test_more_paths_than_there_is_room_for_are_counted_together(control: ControlFile) -> None:
    meter = Meter(control.path, control.slots, 0)
    paths = [f"/{number}" for number in range(NAMED + 5)] + ["/" + "x" * 500]
    meter.know(paths)
    for path in paths:
        meter.count(path, 200, 0.1)
    found = {labels["path"]: value for labels, value in summed(meter, control, "stageway_requests")}
    assert len(found) == NAMED + 1
    assert found["other"] == 6


def test_a_status_that_is_none_is_counted_without_harm(control: ControlFile) -> None:
    meter = Meter(control.path, control.slots, 0)
    for status in (-1, 600, 10**6):
        meter.count("", status, 0.1)
    assert summed(meter, control, "stageway_requests") == [({"path": "other", "status": "0"}, 3)]


def test_threads_lose_no_count(control: ControlFile) -> None:
    meter = Meter(control.path, control.slots, 0)

    def work() -> None:
        for _ in range(5_000):
            meter.batch(2, 3)
            meter.ran(0.001, True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert summed(meter, control, "stageway_run_failed") == [({}, 20_000)]
    assert summed(meter, control, "stageway_batch_rows")[0][1].sum == 60_000


def test_the_gauges_of_a_dead_worker_are_not_counted(control: ControlFile) -> None:
    ended = "from stageway.serving.metrics import Meter; import sys; Meter(sys.argv[1], 4, 1).serve(lambda: 7)"
    subprocess.run([sys.executable, "-c", ended, control.path], check=True)
    meter = Meter(control.path, control.slots, 0)
    meter.serve(lambda: 2)
    assert summed(meter, control, "stageway_queue_length") == [({}, 2)]
    assert summed(meter, control, "stageway_worker_starts") == [({}, 2)]
