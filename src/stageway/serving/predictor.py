"""The prediction thread of a worker: ``init`` and every ``run``, one at a time, while the event loop stays free.

A prediction that outlives its limit is given up: its thread ends when it does, and a new one takes the next request.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any, Callable


class Predictor:
    """Runs one call after the other."""

    def __init__(self) -> None:
        self._jobs: "queue.SimpleQueue[_Job]" = queue.SimpleQueue()
        self._begin_thread()

    def call(self, function: Callable[[], None]) -> None:
        """Run *function* on the prediction thread and wait for it; for the start, when no loop is running."""
        done = threading.Event()
        errors: "list[BaseException]" = []

        def finish(_result: Any, error: "BaseException | None") -> None:
            errors.extend([error] if error else [])
            done.set()

        self._jobs.put(_Job(lambda _: function(), None, finish))
        done.wait()
        if errors:
            raise errors[0]

    async def submit(self, function: Callable[[Any], Any], argument: Any, timeout: float) -> Any:
        """Run *function* on the prediction thread; ``asyncio.TimeoutError`` after *timeout* seconds."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def settle(result: Any, error: "BaseException | None") -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        job = _Job(function, argument, lambda result, error: loop.call_soon_threadsafe(settle, result, error))
        limit = loop.call_later(timeout, self._give_up, job, settle)
        self._jobs.put(job)
        try:
            return await future
        finally:
            limit.cancel()

    def _give_up(self, job: "_Job", settle: Callable[[Any, BaseException], None]) -> None:
        if job.give_up():
            self._begin_thread()
        settle(None, asyncio.TimeoutError())

    def _begin_thread(self) -> None:
        threading.Thread(target=self._work, name="prediction", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job.begin() and not job.work():
                return


class _Job:
    """One call; given up by the loop while it waits, or while the thread works on it."""

    def __init__(self, function: Callable[[Any], Any], argument: Any, finish: Callable[[Any, Any], Any]) -> None:
        self._function, self._argument, self._finish = function, argument, finish
        self._lock = threading.Lock()
        self._begun = self._ended = self._given_up = False

    def begin(self) -> bool:
        with self._lock:
            self._begun = True
            return not self._given_up

    def give_up(self) -> bool:
        """Mark as given up; true when a thread is busy with it, which then has a successor."""
        with self._lock:
            self._given_up = not self._ended
            return self._begun and not self._ended

    def work(self) -> bool:
        """Call the function; false when the thread was given up meanwhile."""
        result, error = None, None
        try:
            result = self._function(self._argument)
        except BaseException as caught:
            error = caught
        with self._lock:
            self._ended = True
            if self._given_up:
                return False
        self._finish(result, error)
        return True
