"""``GET /metrics``: the sums over all workers as Prometheus text or OpenMetrics, whichever the client prefers."""

from __future__ import annotations

from typing import Any, Iterator

from stageway.serving import replies
from stageway.serving.control import ControlFile
from stageway.serving.metrics import Counts, Family, Meter
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.settings import Settings

PATH = "/metrics"
RELEASE = "x-stageway-release"


def routes(settings: Settings, meter: Meter, control: ControlFile) -> "dict[str, Route]":
    """Return the table of this face; what a scrape asks is itself not counted."""
    about = identity(settings)

    def page(scope: Any) -> Reply:
        try:
            from prometheus_client import exposition
        except ImportError:
            return replies.message(404, "there are no metrics: add prometheus-client to the packages of the release")
        # The package is imported by the first scrape only: a service that nobody scrapes does not pay for it.
        write, kind = exposition.choose_encoder(scope.headers.get("accept") or "")
        families = meter.families(control)
        return Reply(200, write(_Registry(families, about)), kind)

    return {PATH: Route(("GET", "HEAD"), page=page, guarded=True, counted=False)}


def identity(settings: Settings) -> "dict[str, str]":
    """Return what is served, as labels."""
    name, _, version = settings.model.partition(":")
    return {
        "service": settings.service_name,
        "service_version": settings.service_version,
        "model": name,
        "model_version": version,
        "release": dict(settings.identity).get(RELEASE, ""),
    }


class _Registry:
    """What prometheus_client's writers ask of a registry."""

    def __init__(self, families: "list[Family]", about: "dict[str, str]") -> None:
        self._families, self._about = families, about

    def collect(self) -> "Iterator[Any]":
        from prometheus_client import core

        yield core.InfoMetricFamily("stageway_service", "What is served.", self._about)
        for family in self._families:
            names = list(family.samples[0][0]) if family.samples else []
            if family.kind == "histogram":
                metric = core.HistogramMetricFamily(family.name, family.help, labels=names)
                for labels, counts in family.samples:
                    assert isinstance(counts, Counts)
                    metric.add_metric(list(labels.values()), _buckets(counts), counts.sum)
            else:
                kind = core.CounterMetricFamily if family.kind == "counter" else core.GaugeMetricFamily
                metric = kind(family.name, family.help, labels=names)
                for labels, value in family.samples:
                    metric.add_metric(list(labels.values()), value)
            yield metric


def _buckets(counts: Counts) -> "list[tuple[str, int]]":
    """Return the buckets as Prometheus has them: each with all that is below its bound."""
    found, below = [], 0
    for bound, count in zip((*counts.bounds, float("inf")), counts.counts):
        below += count
        found.append(("+Inf" if bound == float("inf") else repr(bound), below))
    return found
