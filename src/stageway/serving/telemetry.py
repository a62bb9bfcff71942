"""The metrics of a service by OTLP over HTTP, sent by one of its workers (v1: appInsightsEnabled).

The shared counters are read when it is time to send, so an endpoint that is down costs nothing: nothing is queued, no
request waits, and the next message holds everything anyhow. Which worker sends is settled by a file lock: when it ends,
another goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from importlib.util import find_spec
from typing import Any, Mapping, Optional

from stageway.serving.control import ControlFile
from stageway.serving.exposition import identity
from stageway.serving.metrics import Counts, Family, Meter
from stageway.serving.settings import Settings

KEY = "AML_APP_INSIGHTS_KEY"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
USUAL_MILLISECONDS = 60_000
LAST_SECONDS = 2.0
PACKAGES = ("opentelemetry.sdk.metrics", "opentelemetry.exporter.otlp.proto.http")
THREAD = "telemetry"

log = logging.getLogger("stageway.serving")


class Telemetry:
    """Sends what *meter* counts, from a thread of its own, once ``start`` was called."""

    def __init__(self, settings: Settings, meter: Meter, control: ControlFile) -> None:
        self._settings, self._meter, self._control = settings, meter, control
        self._ending = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._answers = True

    def start(self, environment: "Mapping[str, str]" = os.environ) -> None:
        """Begin to send where an endpoint is set; say once for the whole service what is in the way."""
        leads = self._meter.lead()
        if leads and environment.get(KEY):
            log.warning("%s is without effect: there is no Application Insights; set %s", KEY, ENDPOINTS[1])
        if not self._settings.telemetry:
            return
        obstacle = _obstacle(environment)
        if obstacle:
            if leads:
                log.warning(obstacle)
            return
        seconds = _interval(environment)
        self._thread = threading.Thread(target=self._work, args=(leads, seconds), name=THREAD, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send once more, if the endpoint answers, and end."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(LAST_SECONDS)

    def _work(self, leads: bool, seconds: float) -> None:
        if not leads:
            self._meter.wait_to_lead()
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter()
        _hush()
        resource = _resource(self._settings, self._meter)
        while not self._ending.wait(seconds):
            self._send(exporter, resource)
        if self._answers:
            self._send(exporter, resource)

    def _send(self, exporter: Any, resource: Any) -> None:
        """Send everything; a line in the log when that begins to fail, and when it works again."""
        try:
            families = self._meter.families(self._control)
            done = exporter.export(_data(families, resource, self._meter.born)).name == "SUCCESS"
        except Exception as error:
            log.debug("telemetry: %s", error)
            done = False
        if done is not self._answers:
            self._answers = done
            where = "the endpoint of {}".format(" or ".join(ENDPOINTS))
            log.warning("telemetry: %s %s", where, "takes metrics again" if done else "does not take metrics")


def _obstacle(environment: "Mapping[str, str]") -> str:
    """Return why nothing can be sent, with the way out, or nothing."""
    asked = "telemetry is on (appInsightsEnabled, --telemetry)"
    if not any(environment.get(name) for name in ENDPOINTS):
        return "{} and has nowhere to go: set {}".format(asked, ENDPOINTS[1])
    try:
        lacking = [name for name in PACKAGES if find_spec(name) is None]
    except ModuleNotFoundError as error:
        lacking = [str(error.name)]
    if lacking:
        way_out = "add opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http to the dependencies"
        return "{} and the package {!r} is missing: {}".format(asked, lacking[0], way_out)
    return ""


def _interval(environment: "Mapping[str, str]") -> float:
    text = environment.get(INTERVAL, "") or str(USUAL_MILLISECONDS)
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = 0.0
    if not 0 < milliseconds < float("inf"):
        log.warning("%s: %r is not a number of milliseconds above 0; %s is used", INTERVAL, text, USUAL_MILLISECONDS)
        milliseconds = USUAL_MILLISECONDS
    return milliseconds / 1000


def _hush() -> None:
    """Keep the packages' own lines about our sending out of the log, which would repeat at every interval."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("opentelemetry.", "urllib3.")):
            logging.getLogger(name).addFilter(lambda record: record.threadName != THREAD)


def _resource(settings: Settings, meter: Meter) -> Any:
    from opentelemetry.sdk.resources import Resource

    about = identity(settings)
    attributes = {
        "service.name": about["service"],
        "service.version": about["service_version"],
        # The counters live as long as their file, whichever worker sends them.
        "service.instance.id": "{}-{}".format(socket.gethostname(), meter.born),
        "stageway.model": about["model"],
        "stageway.model_version": about["model_version"],
        "stageway.release": about["release"],
    }
    if os.environ.get("OTEL_SERVICE_NAME"):
        del attributes["service.name"]
    return Resource.create(attributes)


def _data(families: "list[Family]", resource: Any, born: int) -> Any:
    """Return everything in the form that the exporter takes: sums and histograms since *born*, gauges of now."""
    from opentelemetry.sdk.metrics import export
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()
    metrics = [_metric(export, family, born, now) for family in families if family.samples]
    scope = export.ScopeMetrics(InstrumentationScope("stageway.serving"), metrics, "")
    return export.MetricsData([export.ResourceMetrics(resource, [scope], "")])


def _metric(export: Any, family: Family, born: int, now: int) -> Any:
    cumulative = export.AggregationTemporality.CUMULATIVE
    points = [_point(export, labels, value, born, now) for labels, value in family.samples]
    if family.kind == "gauge":
        data = export.Gauge(points)
    elif family.kind == "counter":
        data = export.Sum(points, cumulative, True)
    else:
        data = export.Histogram(points, cumulative)
    unit = next((unit for ending, unit in (("_seconds", "s"), ("_bytes", "By")) if family.name.endswith(ending)), "1")
    return export.Metric(family.name, family.help, unit, data)


def _point(export: Any, labels: "dict[str, str]", value: Any, born: int, now: int) -> Any:
    if not isinstance(value, Counts):
        return export.NumberDataPoint(labels, born, now, value)
    # The least and the most are not known; the message then leaves them out.
    return export.HistogramDataPoint(
        labels, born, now, sum(value.counts), value.sum, value.counts, value.bounds, min=None, max=None
    )
