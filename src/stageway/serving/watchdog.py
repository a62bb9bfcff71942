"""One timer for all limits of a worker, however many requests there are; it is set only while there are any."""

from __future__ import annotations

import asyncio
import time
from typing import Callable, Optional

SHORTEST, LONGEST = 0.001, 30 * 24 * 3600.0


class Watchdog:
    """Asks each of its checks what is over its limit, and when it wants to be asked again.

    A check gets the time (``time.monotonic``) and returns the next moment at which something that is there now may pass
    a limit, or ``None`` if nothing is there. What begins later passes its limit *least* seconds later, or after that.
    """

    def __init__(self) -> None:
        self.timer: Optional[asyncio.TimerHandle] = None
        """``None`` while nothing is watched: whoever then begins something calls ``start``."""
        self._least = float("inf")
        self._checks: "list[Callable[[float], Optional[float]]]" = []

    def add(self, check: "Callable[[float], Optional[float]]", *limits: float) -> None:
        """Watch with *check*, for *limits* in seconds; 0 is none."""
        self._checks.append(check)
        self._least = min([self._least, *(limit for limit in limits if limit > 0)])

    def start(self) -> None:
        """Begin to watch, on the running event loop, if there is any limit."""
        if self._least < LONGEST:
            self._set(asyncio.get_running_loop(), self._least)

    def _set(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.timer = loop.call_later(max(seconds, SHORTEST), self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        # First, so that a check which raises is not the last.
        self.timer = None
        due = [moment for moment in [check(now) for check in self._checks] if moment is not None]
        if due:
            self._set(loop, min(min(due) - now, self._least))
