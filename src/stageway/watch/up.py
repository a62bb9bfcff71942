"""Watch and work in one process, until SIGTERM or Ctrl-C drains it: the task that is going is finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from stageway import output, store
from stageway.config.workspace import Workspace
from stageway.errors import StoreError, TryAgainError
from stageway.pipelines.carrier import OnEvent
from stageway.pipelines.restore import restore
from stageway.pipelines.runner import Runner
from stageway.watch.watcher import Watcher

AWAY_SECONDS = 2.0


def up(
    workspace: Workspace,
    *,
    interval: float = 2.0,
    from_: int | None = None,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Start what should run, then watch and work until *stop* is set, by SIGTERM or Ctrl-C too.

    A second Ctrl-C does not wait for the task that is going; another worker takes it up again.
    """
    stopping = stop or threading.Event()
    with _drained_by_signals(stopping), store.open(workspace) as opened:
        watcher = Watcher(workspace, opened, from_=from_)
        for stage in restore(workspace, opened):
            output.note(f"{stage} is started again")
        with _watching(watcher, interval, stopping):
            _work(Runner(workspace, opened), stopping, on_event)


def work(workspace: Workspace, *, on_event: OnEvent | None = None, stop: threading.Event | None = None) -> None:
    """Work on any run until *stop* is set, by SIGTERM or Ctrl-C too, without watching."""
    stopping = stop or threading.Event()
    with _drained_by_signals(stopping), store.open(workspace) as opened:
        _work(Runner(workspace, opened), stopping, on_event)


def _work(runner: Runner, stopping: threading.Event, on_event: OnEvent | None) -> None:
    """Work; a database that is away, full or locked is said once and waited for."""
    said = ""
    while not stopping.is_set():
        try:
            runner.work(until_idle=False, on_event=on_event, stop=stopping)
        except (TryAgainError, StoreError) as error:
            if error.message != said:
                output.note(f"{error.message}; the worker goes on when that is over")
            said = error.message
            stopping.wait(AWAY_SECONDS)


@contextmanager
def _watching(watcher: Watcher, interval: float, stopping: threading.Event) -> Iterator[None]:
    """Run the watcher in a thread; what it cannot live with ends the work, and is raised here."""
    problems: list[BaseException] = []

    def watch() -> None:
        try:
            watcher.loop(interval, stopping)
        except BaseException as error:  # noqa: BLE001  (raised below, in the main thread)
            problems.append(error)
            stopping.set()

    context = copy_context()
    thread = threading.Thread(target=context.run, args=(watch,), name="watcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
    if problems:
        raise problems[0]


@contextmanager
def _drained_by_signals(stopping: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def drain(number: int, frame: object) -> None:
        if stopping.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopping.set()
        output.note(
            "stopping after the task that is going"
            + ("; Ctrl-C again does not wait" if number == signal.SIGINT else "")
        )

    before = {number: signal.signal(number, drain) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
