"""Who waits for the model, and who scores: jobs and the threads that take them, which can be given up."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

from stageway.serving.replies import Reply
from stageway.serving.scorer import Call, Work

Read = Callable[[Call], Work]
Send = Callable[[Reply], None]


class Job:
    """One request in the lane: *send* gets its reply, once, on any thread; then *done* is settled on the event loop."""

    __slots__ = ("alone", "arrived", "begun", "call", "done", "read", "send", "taken", "work")

    def __init__(self, read: Read, call: Call, send: Optional[Send], done: "asyncio.Future[Reply]") -> None:
        self.read, self.call, self.send, self.done = read, call, send, done
        self.arrived = time.monotonic()
        self.taken = self.begun = 0.0
        """When a thread took it, to read it, and when it last began to run it; 0 before that."""
        self.alone = False
        self.work: Optional[Work] = None


class Current(NamedTuple):
    """What a seat is busy with: the jobs of this call of ``run``, and what comes after it, each alone."""

    jobs: "list[Job]"
    rest: "Sequence[Job]"


class Seat:
    """One prediction thread and what it is busy with; *serve* does one call, ``False`` when that was given up."""

    def __init__(self, serve: "Callable[[Seat], bool]") -> None:
        self._lock = threading.Lock()
        self.current: Optional[Current] = None
        self.given_up = False
        self.seen: "list[Job]" = []
        """The jobs that the call had when it was given up; the watchdog looks after them."""
        self._thread = threading.Thread(target=self._work, args=(serve,), name="prediction", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def go_on(self, current: Current) -> bool:
        """Say what comes next, on the thread itself; ``False`` when it was given up."""
        with self._lock:
            self.current = current
            return not self.given_up

    def end(self) -> bool:
        """Say that the call has ended, on the thread itself; ``False`` when it was given up before."""
        with self._lock:
            self.current = None
            return not self.given_up

    def give_up(self, current: Current) -> bool:
        """Leave the thread to itself; ``False`` if it has got further than *current* by now."""
        with self._lock:
            if self.current is not current:
                return False
            self.given_up = True
            self.seen = list(current.jobs)
            return True

    def stack(self) -> str:
        """Return where the thread is, for the log."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)[-8:]).rstrip() if frame is not None else "its end"

    def _work(self, serve: "Callable[[Seat], bool]") -> None:
        with _event_loop():
            self._serve(serve)

    def _serve(self, serve: "Callable[[Seat], bool]") -> None:
        while True:
            try:
                if not serve(self):
                    return
            except BaseException:
                # Not even a failure could be answered, for want of memory perhaps; whoever comes next may be luckier.
                if self.given_up:
                    return


@contextlib.contextmanager
def _event_loop() -> "Iterator[None]":
    """Give this thread an event loop, which scripts ask asyncio for and only a main thread has by itself."""
    try:
        loop = asyncio.new_event_loop()
    except OSError:
        # No file descriptor is left; most scripts do without.
        yield
        return
    asyncio.set_event_loop(loop)
    with contextlib.closing(loop):
        yield
