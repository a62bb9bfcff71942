"""The lane between the event loop and the model: requests wait in it, prediction threads take them out.

``init`` and every ``run`` happen on these threads, as many at once as the setting ``concurrency`` says, while the
event loop stays free. What waits while a prediction runs is scored together next, where the scorer lets it be joined;
there is no timer, so a request that finds nobody waiting is never held back. A prediction that outlives its limit is
given up: its thread ends when it does, and a new one takes the next request.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import Any, Callable, Optional

from stageway.serving import replies
from stageway.serving.replies import BadRequestError, Reply
from stageway.serving.scorer import Call, Scorer, ScoringError, Work, log_traceback
from stageway.serving.settings import Settings

Read = Callable[[Call], Work]


class Job:
    """One request in the lane; *future* is settled on the event loop, with a reply, once."""

    __slots__ = ("arrived", "begun", "call", "future", "read", "work")

    def __init__(self, read: Read, call: Call, future: "asyncio.Future[Reply]", arrived: float) -> None:
        self.read, self.call, self.future, self.arrived = read, call, future, arrived
        self.begun = 0.0
        self.work: Optional[Work] = None


class Lane:
    """Scores requests in the order of their arrival, joined where *joins* allows it."""

    def __init__(self, settings: Settings, scorer: Scorer, *, joins: bool) -> None:
        self._settings, self._scorer = settings, scorer
        self._most = settings.batch_rows if joins else 1
        self._queue: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._open: "dict[int, Job]" = {}
        self._timer: Optional[asyncio.TimerHandle] = None
        self._seats = [_Seat(self) for _ in range(settings.concurrency)]
        self.on_batch: Callable[[int, int], None] = lambda requests, rows: None
        """Called on a prediction thread with how many requests and rows one call of ``run`` had."""

    @property
    def waiting(self) -> int:
        """Requests whose ``run`` has not begun."""
        return self._queue.qsize()

    def call(self, function: Callable[[], None]) -> None:
        """Run *function* on a prediction thread and wait for it; for the start, when no loop is running."""
        done = threading.Event()
        errors: "list[BaseException]" = []

        def wrapped() -> None:
            try:
                function()
            except BaseException as error:
                errors.append(error)
            done.set()

        self._queue.put(wrapped)
        done.wait()
        if errors:
            raise errors[0]

    async def score(self, read: Read, call: Call) -> Reply:
        """Return the reply to *call*, as *read* understands it; every failure is a reply too."""
        loop = asyncio.get_running_loop()
        job = Job(read, call, loop.create_future(), time.monotonic())
        self._open[id(job)] = job
        if self._timer is None:
            self._watch(loop)
        self._queue.put(job)
        try:
            return await job.future
        finally:
            del self._open[id(job)]

    # On the prediction threads.

    def take(self, seat: "_Seat") -> "list[Job]":
        """Return the jobs of one call of ``run``, read; what cannot be read is answered here."""
        group: "list[Job]" = []
        rows = 0
        while True:
            job = seat.held or (None if group and self._queue.empty() else self._queue.get())
            seat.held = None
            if job is None:
                return group
            if not isinstance(job, Job):
                job()
                continue
            if job.work is None and not self._read(job):
                continue
            work = job.work
            assert work is not None
            if group and (work.key is None or work.key != group[0].work.key or rows + work.rows > self._most):  # type: ignore[union-attr]
                seat.held = job
                return group
            group.append(job)
            rows += work.rows
            if work.key is None or rows >= self._most:
                return group

    def _read(self, job: Job) -> bool:
        if job.future.done():
            return False
        try:
            job.work = job.read(job.call)
            return True
        except BaseException as error:
            self._settle([job], [_failure(error)])
            return False

    def run(self, group: "list[Job]") -> None:
        """Score one group and answer it; when a joined call fails, each is scored alone, so that it fails alone."""
        works = [job.work for job in group if job.work is not None]
        begun = time.perf_counter()
        for job in group:
            job.begun = time.monotonic()
        self.on_batch(len(works), sum(work.rows for work in works))
        if len(works) == 1:
            self._settle(group, [self._alone(works[0])])
            return
        try:
            result = self._scorer.run(self._scorer.join([work.data for work in works]))
            parts = self._scorer.split(result, [work.rows for work in works])
        except BaseException:
            self._settle(group, [self._alone(work) for work in works])
            return
        seconds = time.perf_counter() - begun
        self._settle(group, [_written(work, part, seconds) for work, part in zip(works, parts)])

    def _alone(self, work: Work) -> Reply:
        begun = time.perf_counter()
        try:
            result = self._scorer.run(work.data)
        except BaseException as error:
            reply = _failure(error)
            reply.seconds = time.perf_counter() - begun
            return reply
        return _written(work, result, time.perf_counter() - begun)

    def _settle(self, group: "list[Job]", found: "list[Reply]") -> None:
        try:
            group[0].future.get_loop().call_soon_threadsafe(_deliver, group, found)
        except RuntimeError:
            # The loop has ended, and the connections with it.
            pass

    # On the event loop: limits.

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set one timer for the next moment at which a limit may be passed; none per request."""
        limits = [self._settings.scoring_timeout, self._settings.timeout, self._settings.queue_wait]
        least = min(limit for limit in limits if limit > 0)
        oldest = next(iter(self._open.values()), None)
        if oldest is None:
            self._timer = None
            return
        now = time.monotonic()
        due = max(oldest.arrived + least - now, least / 20, 0.005)
        self._timer = loop.call_later(min(due, least), self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now, settings = time.monotonic(), self._settings
        for job in list(self._open.values()):
            if job.future.done():
                continue
            if settings.timeout and now - job.arrived >= settings.timeout:
                _give_up(job, 504, "the request took more than its limit of {:g} ms", settings.timeout)
            elif not job.begun and settings.queue_wait and now - job.arrived >= settings.queue_wait:
                sentence = "the service is busy: the request waited {:g} ms, its limit; try again later"
                _give_up(job, 503, sentence, settings.queue_wait)
            elif job.begun and now - job.begun >= settings.scoring_timeout:
                sentence = "scoring took more than its limit of {:g} ms"
                _give_up(job, 500, sentence, settings.scoring_timeout)
        self._seats = [seat if not seat.abandon() else _Seat(self) for seat in self._seats]
        self._watch(loop)


class _Seat:
    """One prediction thread and what it is busy with."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._lock = threading.Lock()
        self._group: "list[Job]" = []
        self._abandoned = False
        self.held: Optional[Job] = None
        threading.Thread(target=self._work, name="prediction", daemon=True).start()

    def abandon(self) -> bool:
        """Leave the thread to itself when everything that it is busy with has been given up."""
        with self._lock:
            self._abandoned = bool(self._group) and all(job.future.done() for job in self._group)
            if self._abandoned and self.held is not None:
                self._lane._queue.put(self.held)
                self.held = None
            return self._abandoned

    def _work(self) -> None:
        while True:
            group = self._lane.take(self)
            with self._lock:
                self._group = group
            self._lane.run(group)
            with self._lock:
                if self._abandoned:
                    return
                self._group = []


def _deliver(group: "list[Job]", found: "list[Reply]") -> None:
    for job, reply in zip(group, found):
        if not job.future.done():
            job.future.set_result(reply)


def _give_up(job: Job, status: int, sentence: str, seconds: float) -> None:
    reply = replies.message(status, sentence.format(seconds * 1000))
    reply.failed, reply.seconds = bool(job.begun), time.monotonic() - job.begun if job.begun else 0.0
    job.future.set_result(reply)


def _written(work: Work, result: Any, seconds: float) -> Reply:
    try:
        reply = work.write(result)
    except BadRequestError as error:
        reply = replies.message(error.status, error.message)
    except BaseException as error:
        log_traceback(error)
        reply = replies.message(500, "the reply cannot be written as JSON; the log of the service says why")
        reply.failed = True
    reply.seconds = seconds
    return reply


def _failure(error: BaseException) -> Reply:
    if isinstance(error, BadRequestError):
        return replies.message(error.status, error.message)
    if not isinstance(error, ScoringError):
        log_traceback(error)
    reply = replies.message(500, "the model's code raised an error; the log of the service has the traceback")
    reply.failed = True
    return reply
