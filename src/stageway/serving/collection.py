"""What was asked and answered, kept as Parquet, off the request path; and v1's ``ModelDataCollector`` for scripts.

A request costs a sampling decision and a place in a queue that is bounded in bytes: what does not fit is dropped and
counted. A thread empties the queue into files when enough is there or a minute has passed. A disk that is full, or a
folder that has gone, pauses collection; the service goes on. Data that no file takes costs only itself.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import uuid
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Callable, Iterable, NamedTuple, Optional, Sequence, Union
from zlib import crc32

from stageway.serving import logs, replies
from stageway.serving.flatten import Reader
from stageway.serving.metrics import COLLECTED, DROPPED
from stageway.serving.parquet import Files, Place, Rows
from stageway.serving.replies import Reply
from stageway.serving.scorer import Call, StartError
from stageway.serving.settings import Settings

QUEUE_BYTES = 16 * 1024 * 1024
FILE_BYTES = 4 * 1024 * 1024
FILE_ROWS = 50_000
FILE_SECONDS = 60.0
PAUSE_SECONDS = 60.0
STOP_SECONDS = 10.0
OVERHEAD = 600
CORRELATION = "$aml_dc_correlation_id"
INPUTS, OUTPUTS = "inputs", "outputs"

log = logging.getLogger("stageway.serving")


class Collected(NamedTuple):
    """One piece of data in the queue: *columns* of a place are made of it only when it is written."""

    place: Place
    columns: "Callable[[], dict[str, list[Any]]]"
    correlation: str
    request_id: Optional[str]
    workspace: str
    moment: float
    by_script: bool = False


class Answered(NamedTuple):
    """A request and its reply in the queue, as raw as they came."""

    asked: "Union[bytes, Callable[[], Any]]"
    answered: bytes
    request_id: str
    moment: float


class Collector:
    """The queue of one worker, and the thread that empties it; *count* is called with a cell of the meter."""

    def __init__(
        self,
        settings: Settings,
        count: "Callable[[int, int], None]",
        *,
        seconds: float = FILE_SECONDS,
    ) -> None:
        self.settings, self._count, self._seconds = settings, count, seconds
        model, _, version = settings.model.partition(":")
        self.model, self.version = model or "default", version or "default"
        self.reader = Reader(settings.collect_without)
        self._files = Files(settings.collect, settings.service_name, settings.collect_keep)
        self._lock = threading.Lock()
        self._waiting: "list[tuple[Union[Answered, Collected], int]]" = []
        self._held = 0
        self._paused_until = 0.0
        self._failing = self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="collection", daemon=True)

    def start(self) -> None:
        """Begin; ``StartError`` when nothing could be written."""
        what = "--collect {}".format(self.settings.collect)
        # Arrow's usual allocator keeps tens of megabytes for itself, which a worker has better uses for.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            way_out = "add pyarrow to the dependencies, or switch data collection off"
            raise StartError(
                "{}: data is collected with the package 'pyarrow': {}; {}".format(what, error, way_out)
            ) from error
        try:
            self._files.open()
        except OSError as error:
            raise StartError("{}: {}; give a folder that can be written".format(what, error)) from error
        self._thread.start()

    def offer(self, call: Call, reply: Reply, request_id: str) -> None:
        """Keep a request that was answered, if the sample takes it; called on the event loop."""
        if reply.status >= 400 or call.method == "OPTIONS" or random.random() >= self.settings.collect_share:  # noqa: S311
            return
        asked = call.query_values if call.method == "GET" else call.body
        size = len(call.body) + len(call.query) + len(reply.body) + OVERHEAD
        self.put(Answered(asked, reply.body, request_id, time.time()), size)

    def put(self, one: "Union[Answered, Collected]", size: int) -> None:
        """Queue *one*, of about *size* bytes, or drop it."""
        with self._lock:
            fits = not self._closing and size <= FILE_BYTES and self._held + size <= QUEUE_BYTES
            fits = fits and (not self._paused_until or time.monotonic() >= self._paused_until)
            if fits:
                self._waiting.append((one, size))
                self._held += size
        if not fits:
            self._count(DROPPED, 1)
        elif self._held >= FILE_BYTES:
            self._wake.set()

    def close(self) -> None:
        """Write what is there, and end."""
        with self._lock:
            self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    # On the thread.

    def _work(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(self._seconds)
            self._wake.clear()
            closing = self._closing
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
        if not taken:
            return
        try:
            lost = self._write(
                [(number, piece) for number, (one, _) in enumerate(taken) for piece in self._pieces(one)]
            )
        except OSError as error:
            self._count(DROPPED, len(taken))
            self._pause(error)
        except Exception as error:
            self._count(DROPPED, len(taken))
            log.warning("--collect %s: %s requests could not be kept: %s", self.settings.collect, len(taken), error)
        else:
            self._counted(len(taken) - len(lost), len(lost))
        with self._lock:
            self._held -= sum(size for _, size in taken)

    def _counted(self, kept: int, lost: int) -> None:
        if kept:
            self._count(COLLECTED, kept)
        if lost:
            self._count(DROPPED, lost)
        if kept and self._failing:
            self._failing = False
            log.warning("--collect %s: data is collected again", self.settings.collect)

    def _pause(self, error: Exception) -> None:
        if not self._failing:
            what = "--collect %s: %s: data is not collected until that is put right; requests are served"
            log.warning(what, self.settings.collect, error)
        self._failing = True
        self._paused_until = time.monotonic() + PAUSE_SECONDS

    def _pieces(self, one: "Union[Answered, Collected]") -> "list[Collected]":
        if isinstance(one, Collected):
            return [one]
        asked, answered, name, moment = one
        read = self.reader
        columns = (lambda: read.body(asked)) if isinstance(asked, bytes) else (lambda: read.value(asked()))
        inputs, outputs = (Place(self.model, self.version, designation) for designation in (INPUTS, OUTPUTS))
        return [
            Collected(inputs, columns, name, name, "", moment),
            Collected(outputs, lambda: read.body(answered), name, name, "", moment),
        ]

    def _write(self, pieces: "Iterable[tuple[int, Collected]]") -> "set[int]":
        """Write pieces, each with the number of what it is a part of; return the numbers of what could not be kept."""
        # What a script collects itself has columns of its own, and so has files of its own.
        tables: "dict[tuple[Place, bool], Rows]" = {}
        lost: "set[int]" = set()
        for number, piece in pieces:
            key = (piece.place, piece.by_script)
            try:
                columns = piece.columns()
            except Exception as error:
                log.debug("not collected: %s", error)
                lost.add(number)
                continue
            rows = tables.setdefault(key, Rows())
            if rows.count and not rows.fits(columns):
                lost |= self._file(piece.place, rows)
                rows = tables[key] = Rows()
            rows.add(columns, self._marks(piece), number)
            if rows.count >= FILE_ROWS:
                lost |= self._file(piece.place, tables.pop(key))
        for (place, _), rows in tables.items():
            lost |= self._file(place, rows)
        self._files.trim()
        return lost

    def _file(self, place: Place, rows: Rows) -> "set[int]":
        """Write one file, where need be without what no file takes; return the numbers of that."""
        if not rows.count:
            return set()
        try:
            self._files.write(place, rows)
            return set()
        except OSError:
            raise
        except Exception as error:
            log.debug("not collected whole: %s", error)
        sound = rows.sound()
        if sound.count:
            self._files.write(place, sound)
        return rows.owners() - sound.owners()

    def _marks(self, piece: Collected) -> "dict[str, Any]":
        """Return the columns that v1 adds to each row; a boundary between rows is not needed in Parquet."""
        return {
            CORRELATION: piece.correlation,
            "$aml_dc_scoring_timestamp": datetime.fromtimestamp(piece.moment, timezone.utc),
            "$aml_workspace": piece.workspace,
            "$aml_service_name": self.settings.service_name,
            "$aml_model_name": piece.place.model,
            "$aml_model_version": piece.place.version,
            "$aml_request_id": piece.request_id,
        }


_active: Optional[Collector] = None
_said = False


def activate(collector: Optional[Collector]) -> None:
    """Let the ``ModelDataCollector`` of scripts write with *collector*."""
    global _active
    _active = collector


class ModelDataCollector:
    """v1's class of this name: ``collect`` keeps rows under a model and a designation, where collection is on."""

    def __init__(
        self,
        model_name: str,
        designation: str = "default",
        feature_names: Optional[Sequence[str]] = None,
        workspace: str = "default/default/default",
        webservice_name: str = "default",
        model_version: str = "default",
        collection_name: str = "default",
        identifier: Optional[str] = None,
        **others: Any,
    ) -> None:
        if identifier is not None:
            # The older name of the designation.
            designation = identifier
        if others:
            _say_unknown(tuple(sorted(others)))
        self._collector, self._names, self._workspace = _active, feature_names, workspace
        if self._collector is None:
            _say_once()
        elif model_version == "default" and model_name == self._collector.model:
            model_version = self._collector.version
        self._place = Place(model_name, str(model_version), designation)

    def collect(self, input_data: Any, user_correlation_id: str = "") -> "dict[str, str]":
        """Keep *input_data*: a list, an array or a table; return the headers that ``add_correlations`` takes."""
        headers: "dict[str, str]" = {}
        if isinstance(input_data, _Correlated):
            input_data, headers = input_data
        # Rows of one request belong together though its script says nothing about that.
        request_id = next(iter(logs.scored()), None)
        correlation = user_correlation_id or headers.get(CORRELATION) or request_id or str(uuid.uuid4())
        collector = self._collector
        if collector is not None and crc32(correlation.encode()) < collector.settings.collect_share * 2**32:
            written = _snapshot(input_data)

            def columns() -> "dict[str, list[Any]]":
                return collector.reader.value(replies.loads(written), self._names)

            now = time.time()
            piece = Collected(self._place, columns, correlation, request_id, self._workspace, now, by_script=True)
            collector.put(piece, len(written) + OVERHEAD)
        return {CORRELATION: correlation}

    def add_correlations(self, input_data: Any, input_correlations: "Optional[dict[str, str]]") -> Any:
        """Return *input_data* so that ``collect`` keeps it under the id that an earlier ``collect`` returned."""
        return _Correlated((input_data, dict(input_correlations or {})))


class _Correlated(tuple):  # type: ignore[type-arg]
    """Data, and the headers it belongs to."""


def _snapshot(data: Any) -> bytes:
    """Return the data as JSON, since the script may change it afterwards."""
    if hasattr(data, "toPandas"):
        data = data.toPandas()
    if hasattr(data, "columns") and hasattr(data, "to_dict"):
        data = {"columns": [str(name) for name in data.columns], "data": data.to_numpy(dtype=object).tolist()}
    return replies.dumps(data)


@lru_cache(maxsize=None)
def _say_unknown(names: "tuple[str, ...]") -> None:
    log.warning("ModelDataCollector: %s is not known here and is left out", ", ".join(names))


def _say_once() -> None:
    global _said
    if not _said:
        _said = True
        log.info("ModelDataCollector is without effect: data collection is off (--collect)")
