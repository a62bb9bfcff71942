"""All that watches one worker: its meter, what exports it, and what collects its data."""

from __future__ import annotations

from typing import Optional

from stageway.serving import collection, exposition, logs
from stageway.serving.app import App
from stageway.serving.collection import Collector
from stageway.serving.control import ControlFile
from stageway.serving.lane import Lane
from stageway.serving.metrics import Meter
from stageway.serving.routes import Route
from stageway.serving.scorer import Scorer
from stageway.serving.settings import Settings
from stageway.serving.telemetry import Telemetry


class Watch:
    """Begun before the model is loaded, since scripts collect data from ``init`` on."""

    def __init__(self, settings: Settings, control: ControlFile, slot: int) -> None:
        self._settings, self._control = settings, control
        self.meter = Meter(settings.control, control.slots, slot)
        self._collector: Optional[Collector] = None
        if settings.collect:
            self._collector = Collector(settings, self.meter.add)
            self._collector.start()
        collection.activate(self._collector)
        self._telemetry = Telemetry(settings, self.meter, control)
        self._telemetry.start()

    def routes(self, scorer: Scorer, others: "dict[str, Route]") -> "dict[str, Route]":
        """Return the route of the metrics, having learnt what *others* there are and what the columns are called."""
        self.meter.know((path for path, route in others.items() if route.counted), self._settings.prefix)
        if self._collector is not None:
            self._collector.reader.names = [str(name) for name in getattr(scorer, "names", ())]
        return exposition.routes(self._settings, self.meter, self._control)

    def begin(self, app: App, lane: Lane) -> None:
        """Watch *app* and *lane* from now on."""
        lane.on_batch, lane.on_run = self.meter.batch, self.meter.ran
        app.meter, app.collector, app.on_stopping = self.meter, self._collector, self._end
        if self._collector is not None:
            # What a script collects belongs to the request that it scores.
            lane.on_scoring = logs.scores
        self.meter.serve(lambda: lane.waiting)

    def _end(self) -> None:
        if self._collector is not None:
            self._collector.close()
        self._telemetry.close()
