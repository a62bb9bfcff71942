"""Metrics by OTLP, received by a real HTTP server that reads the protocol's messages."""

from __future__ import annotations

import http.server
import os
import signal
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

SCRIPT = """
import os
def run(data):
    return os.getpid()
"""
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps the messages that it was sent; refuses them while it is *down*."""

    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[ExportMetricsServiceRequest] = []
        self.asked: list[str] = []
        self.down = False
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def values(self, name: str) -> list[Any]:
        """Return the data points of *name* in the newest message."""
        if not self.messages:
            return []
        (resource,) = self.messages[-1].resource_metrics
        (scope,) = resource.scope_metrics
        found = [metric for metric in scope.metrics if metric.name == name]
        return [point for metric in found for point in getattr(metric, str(metric.WhichOneof("data"))).data_points]

    def total(self, name: str) -> float:
        return float(sum(point.as_double for point in self.values(name)))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(self.path)
        if self.server.down:
            self.send_error(400)
            return
        self.server.messages.append(ExportMetricsServiceRequest.FromString(body))
        reply = ExportMetricsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def test_the_counts_of_all_workers_are_sent_by_one_of_them_also_after_it_was_killed(
    start: Any, receiver: Receiver, until: Callable[..., None]
) -> None:
    given = ["--workers", "2", "--telemetry", "--release", "3f2a", "--model-version", "iris:7"]
    environment = {ENDPOINT: receiver.url, "OTEL_METRIC_EXPORT_INTERVAL": "100", "SERVICE_NAME": "flowers"}
    service = start(SCRIPT, *given, environment=environment).ready()
    workers = {service.score(number).json for number in range(20)}
    assert len(workers) == 2
    until(lambda: receiver.total("stageway_requests") == 20)
    assert set(receiver.asked) == {"/v1/metrics"}

    (spent,) = receiver.values("stageway_request_duration_seconds")
    assert spent.count == sum(spent.bucket_counts) == 20
    assert len(spent.bucket_counts) == len(spent.explicit_bounds) + 1
    assert {one.key: one.value.string_value for one in spent.attributes} == {"path": "/score"}
    assert spent.start_time_unix_nano < spent.time_unix_nano
    attributes = {
        one.key: one.value.string_value for one in receiver.messages[-1].resource_metrics[0].resource.attributes
    }
    assert attributes["service.name"] == "flowers"
    assert (attributes["stageway.model"], attributes["stageway.model_version"]) == ("iris", "7")
    assert attributes["stageway.release"] == "3f2a"

    for victim in workers:
        os.kill(victim, signal.SIGKILL)
    until(lambda: receiver.total("stageway_worker_starts") == 4)
    for number in range(5):
        assert service.score(number).status == 200
    until(lambda: receiver.total("stageway_requests") == 25)
    instances = {
        one.value.string_value
        for message in receiver.messages
        for one in message.resource_metrics[0].resource.attributes
        if one.key == "service.instance.id"
    }
    assert len(instances) == 1
    times = [message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points for message in receiver.messages]
    moments = [points[0].time_unix_nano for points in times if points]
    assert moments == sorted(moments)


def test_an_endpoint_that_is_down_is_one_line_and_when_it_is_back_nothing_is_missing(
    start: Any, receiver: Receiver, until: Callable[..., None]
) -> None:
    receiver.down = True
    environment = {ENDPOINT: receiver.url, "OTEL_METRIC_EXPORT_INTERVAL": "50"}
    service = start(SCRIPT, "--telemetry", environment=environment).ready()
    until(lambda: len(receiver.asked) > 10)
    assert service.score(1).status == 200
    receiver.down = False
    until(lambda: receiver.total("stageway_requests") == 1)
    until(lambda: any("takes metrics again" in line for line in service.lines))
    said = [line for line in service.lines if "telemetry" in line.lower() or "export" in line.lower()]
    assert len(said) == 2
    assert "does not take metrics" in said[0]


def test_what_was_counted_last_is_sent_at_the_stop(start: Any, receiver: Receiver, until: Callable[..., None]) -> None:
    environment = {ENDPOINT: receiver.url, "OTEL_METRIC_EXPORT_INTERVAL": "600000"}
    service = start(SCRIPT, "--telemetry", environment=environment).ready()
    assert service.score(1).status == 200
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0
    assert receiver.total("stageway_requests") == 1


def test_v1s_switch_without_an_endpoint_is_one_warning_that_names_the_key(start: Any) -> None:
    environment = {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": "0-1-2"}
    service = start(SCRIPT, "--workers", "2", environment=environment).ready()
    assert service.score(1).status == 200
    said = [line for line in service.lines if ENDPOINT in line]
    assert len(said) == 2
    assert sum("appInsightsEnabled" in line and "nowhere to go" in line for line in said) == 1
    assert sum("AML_APP_INSIGHTS_KEY is without effect" in line for line in said) == 1
    assert not any("0-1-2" in line for line in service.lines)


def test_a_release_without_the_packages_serves_and_says_which_to_add(start: Any, tmp_path: Path) -> None:
    site = Path(sysconfig.get_path("purelib"))
    for name in ("granian", "orjson", "click", "numpy", "numpy.libs"):
        for folder in site.glob(name):
            (tmp_path / folder.name).symlink_to(folder)
    environment = {ENDPOINT: "http://127.0.0.1:9", "STAGEWAY_SITE": str(tmp_path)}
    service = start(SCRIPT, "--telemetry", environment=environment).ready()
    assert service.score(1).status == 200
    (line,) = [line for line in service.lines if "opentelemetry" in line]
    assert "appInsightsEnabled" in line
    assert "add opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http" in line
    metrics = service.ask("GET", "/metrics")
    assert metrics.status == 404
    assert "prometheus-client" in metrics.json["message"]
