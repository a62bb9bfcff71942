"""What a service writes to its log: lines of text, or on demand one JSON object a line.

A JSON line has ``time`` (UTC), ``level``, ``logger`` and ``message``; ``request_id`` where it was written while a
request was scored (``request_ids`` where several were, joined); ``traceback`` where there is one. What the script
prints comes as lines of the loggers ``stdout`` and ``stderr``. Only what compiled code writes by itself stays text.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any, Optional, Sequence

import orjson

from stageway.serving.settings import Settings

OURS = "stageway.serving"
PREFIX = "stageway-serving: "
TEXT = "%(levelname)s %(name)s: %(message)s"
CANNOT_START = "cannot start: "
LONGEST_LINE = 64 * 1024


class _Scored(threading.local):
    """The ids of the requests that a prediction thread is busy with."""

    ids: "Sequence[str]" = ()


_scored = _Scored()


def scores(ids: "Sequence[str]") -> None:
    """Say that the thread which calls this scores the requests *ids* from now on."""
    _scored.ids = ids


def scored() -> "Sequence[str]":
    """Return the ids of the requests that this thread scores, as far as it was told."""
    return _scored.ids


def say(log_format: str, sentence: str, level: str = "INFO") -> None:
    """Write one line of the service itself, at once."""
    _put(_line(level, OURS, sentence) if log_format == "json" else PREFIX + sentence)


def drop_unwritten() -> None:
    """Forget what the log does not take, since no process is forked while it waits to be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _drop(stream)


def _drop(stream: Any) -> None:
    number = stream.fileno()
    real, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
        stream.flush()
    finally:
        os.dup2(real, number)
        os.close(real)
        os.close(nowhere)


def why_not_started(line: str) -> str:
    """Return the reason in a line that says why a service could not start, in either format; else nothing."""
    if line.startswith("{"):
        try:
            found = orjson.loads(line)
        except ValueError:
            return ""
        line = PREFIX + str(found.get("message", "")) if found.get("logger") == OURS else ""
    return line.partition(PREFIX + CANNOT_START)[2] if line.startswith(PREFIX + CANNOT_START) else ""


def start(settings: Settings) -> None:
    """Direct the log of this process: our lines, the logging module, warnings, what is printed."""
    as_json = settings.log_format == "json"
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if as_json:
            setattr(sys, name, _Lines(name))
        else:
            stream.reconfigure(line_buffering=True)
    handler = Handler(sys.__stderr__ if as_json else sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(TEXT))
    root = logging.getLogger()
    root.addHandler(handler)
    level = os.environ.get("AZUREML_LOG_LEVEL", "INFO").upper()
    root.setLevel(level if isinstance(logging.getLevelName(level), int) else "INFO")
    if as_json:
        logging.captureWarnings(True)


def of_granian(settings: Settings) -> "dict[str, Any]":
    """Return the configuration of granian's own log, which is quiet unless something is wrong with it."""
    plain = {"format": PREFIX + "%(message)s"}
    formatter = {"()": "stageway.serving.logs.JsonFormatter"} if settings.log_format == "json" else plain
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": formatter},
        "handlers": {
            "stderr": {"class": "stageway.serving.logs.Handler", "formatter": "ours", "stream": "ext://sys.__stderr__"}
        },
        "loggers": {"_granian": {"handlers": ["stderr"], "level": "WARNING", "propagate": False}},
    }


def log_traceback(error: BaseException, inner: Optional[TracebackType]) -> None:
    """Write the traceback of *error* from *inner* on; what cannot be written is lost."""
    try:
        lines = traceback.format_exception(type(error), error, inner)
        if isinstance(sys.stderr, _Lines):
            _put(_line("ERROR", OURS, lines[-1].strip(), traceback="".join(lines)))
        else:
            print("".join(lines), end="", file=sys.stderr, flush=True)
    except Exception:
        _put("{}a {} cannot be written to the log".format(PREFIX, type(error).__name__))


class AccessLog:
    """One line for each request: method, path, status, milliseconds, id. Queries and headers may hold secrets."""

    def __init__(self, settings: Settings) -> None:
        self._json = settings.log_format == "json"

    def write(self, method: str, path: str, status: int, seconds: float, request_id: str) -> None:
        path, request_id = (text if text.isprintable() else ascii(text)[1:-1] for text in (path, request_id))
        took = round(seconds * 1000, 3)
        if self._json:
            message = "{} {} {}".format(method, path, status)
            line = _line(
                "INFO",
                OURS + ".access",
                message,
                method=method,
                path=path,
                status=status,
                ms=took,
                request_id=request_id,
            )
        else:
            line = "{}{} {} {} {:.3f} ms {}".format(PREFIX, method, path, status, took, request_id)
        _put(line)


class Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes records of the logging module; one that cannot be written is lost, and says so if that can be."""

    def handleError(self, record: logging.LogRecord) -> None:
        try:
            super().handleError(record)
        except (OSError, ValueError):
            # The stream for saying so is closed as well.
            pass


class JsonFormatter(logging.Formatter):
    """Writes a record of the logging module as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        more: "dict[str, Any]" = {}
        if record.exc_info:
            more["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            more["stack"] = record.stack_info
        return _line(record.levelname, record.name, record.getMessage(), at=record.created, **more)


class _Lines(io.TextIOBase):
    """Stands in for a standard stream: each whole line of text becomes one JSON object."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name: str) -> None:
        self._name, self._lock, self._rest = name, threading.Lock(), ""
        self._level = "INFO" if name == "stdout" else "WARNING"
        self._real = getattr(sys, "__{}__".format(name))

    @property
    def buffer(self) -> Any:
        """For bytes, which stay as they are."""
        return self._real.buffer

    def fileno(self) -> int:
        return int(self._real.fileno())

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > LONGEST_LINE:
                lines, self._rest = [*lines, self._rest], ""
            found = [_line(self._level, self._name, line) for line in lines if line.strip()]
            if found:
                self._real.write("\n".join(found) + "\n")
                self._real.flush()
        return len(text)

    def flush(self) -> None:
        self._real.flush()


def _put(line: str) -> None:
    """Write a line at once; with a full disk, or with nobody who reads it, a service goes on without its log."""
    try:
        print(line, file=sys.__stderr__, flush=True)
    except (OSError, ValueError):
        # ValueError: a script has closed the stream.
        pass


def _line(level: str, logger: str, message: str, *, at: Optional[float] = None, **more: Any) -> str:
    at = time.time() if at is None else at
    stamp = "{}.{:06d}Z".format(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)), int(at % 1 * 1e6))
    ids = _scored.ids
    if ids and "request_id" not in more:
        more["request_id" if len(ids) == 1 else "request_ids"] = ids[0] if len(ids) == 1 else list(ids)
    content = {"time": stamp, "level": level, "logger": logger, "message": message, **more}
    try:
        return orjson.dumps(content).decode()
    except (TypeError, ValueError):
        # Lone surrogates and the like, which JSON in UTF-8 cannot say.
        return orjson.dumps({key: ascii(value) for key, value in content.items()}).decode()
