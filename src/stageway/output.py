"""What tasks tell people while they work, and how results are printed.

A task calls ``note``; whoever runs it decides where notes go (the terminal, a run's log). Results go to standard
output, notes and errors to standard error, so that ``--json`` can be piped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Sink = Callable[[str], None]


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_sink: ContextVar[Sink] = ContextVar("sink", default=_to_stderr)


def note(text: str) -> None:
    """Say what is being done, one line without a full stop."""
    _sink.get()(text)


@contextmanager
def notes_to(sink: Sink) -> Iterator[None]:
    """Send the notes of this context to *sink*."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def line(text: str = "") -> None:
    """Print one line of a result."""
    print(text, flush=True)
