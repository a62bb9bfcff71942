"""A worker's side of what it has agreed with its parent: to report, to take its leave, and never to outlive it."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import connection
from typing import Any, Callable

from stageway.serving import tls
from stageway.serving.settings import Settings

READY, FAILED, BEAT, HANGS, LEAVE = "ready", "failed", "beat", "hangs", "leave"
BEATS = 5
"""Signs of life within ``worker_timeout``."""
LINGER = 2.0
"""Seconds for which a leaving worker answers on the connections that it has, each reply being the last of its own."""
LOOK = 0.05
LONGEST_SENTENCE, LONGEST_REPORT = 16 * 1024, 1024 * 1024


class Duty:
    """One worker's; *reports* and *orders* are its ends of two pipes, *address* the name of the shared socket."""

    def __init__(self, settings: Settings, reports: Any, orders: Any, address: object) -> None:
        self._settings, self._reports, self._orders, self._address = settings, reports, orders, address
        self.on_leave: Callable[[], None] = lambda: None
        """Called on the event loop when no more connections are taken: replies are to close theirs from now on."""
        self.busy: Callable[[], bool] = lambda: False

    def begin(self) -> None:
        """Forget the parent's signal handlers, which came along with a fork, and listen to it instead."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        # Whether to reload or to stop is the parent's to decide; it gets a signal to the group as well.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def failed(self, sentence: str) -> None:
        """Report that this worker cannot serve, and end."""
        self._report(FAILED, sentence[:LONGEST_SENTENCE])
        os._exit(1)

    def serving(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report that this worker serves, and go on doing so while the event loop turns."""
        self._loop = loop
        tls.check(self._settings)
        # Not before it turns: the loop's own handlers lose a signal that comes earlier.
        loop.call_soon(self._report, READY)
        if self._settings.worker_timeout:
            loop.call_later(self._settings.worker_timeout / BEATS, self._beat)

    def hangs(self) -> None:
        """Report that so many predictions hang that another worker is needed in the place of this one."""
        try:
            self._report(HANGS)
        except OSError:
            pass  # the parent is gone, and this process ends

    def _report(self, kind: str, sentence: str = "") -> None:
        self._reports.send_bytes(json.dumps([kind, sentence]).encode())

    def _beat(self) -> None:
        try:
            self._report(BEAT)
        except OSError:
            return  # the parent is gone, and the other thread ends this process
        self._loop.call_later(self._settings.worker_timeout / BEATS, self._beat)

    def _watch(self) -> None:
        parent = multiprocessing.parent_process()
        gone = [parent.sentinel] if parent is not None else []
        while True:
            ready = connection.wait([*gone, self._orders])
            if self._orders in ready and not (gone and gone[0] in ready):
                try:
                    self._orders.recv()
                except (EOFError, OSError):
                    break
                self._loop.call_soon_threadsafe(self._leave)
                continue
            break
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._settings.stop_timeout)
        os._exit(1)

    def _leave(self) -> None:
        # Imported here, since only leaving needs it.
        from stageway.serving.address import stop_listening

        stop_listening(self._address)
        self.on_leave()
        self._end_when_idle(time.monotonic() + LINGER)

    def _end_when_idle(self, earliest: float) -> None:
        if self.busy() or time.monotonic() < earliest:
            self._loop.call_later(LOOK, self._end_when_idle, earliest)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
