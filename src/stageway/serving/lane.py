"""The lane between the event loop and the model: requests wait in it, prediction threads take them out.

``init`` and every ``run`` happen on these threads, as many at once as the setting ``concurrency`` says, while the
event loop stays free. What waits while a prediction runs is scored together next, where the scorer lets it be joined;
there is no timer, so a request that finds nobody waiting is never held back. A prediction that outlives its limit is
given up: its thread is left to itself, and another takes its seat.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from typing import Any, Callable, Optional, Sequence

from stageway.serving import replies
from stageway.serving.replies import BadRequestError, Reply
from stageway.serving.scorer import Call, Scorer, ScoringError, Work, log_traceback
from stageway.serving.seats import Current, Job, Read, Seat, Send
from stageway.serving.settings import Settings
from stageway.serving.watchdog import Watchdog

MOST_LOST = 8
"""Threads of predictions that were given up and have not ended; with more, a worker takes no new request."""
log = logging.getLogger(__name__)


class Lane:
    """Scores requests in the order of their arrival, joined where *joins* allows it.

    ``_open`` holds every request that has no reply yet. Taking a job out of it is one atomic step, and whoever has done
    it answers: a prediction thread, the watchdog, or nobody when the request itself was cancelled.
    """

    def __init__(self, settings: Settings, scorer: Scorer, *, joins: bool) -> None:
        self._settings, self._scorer, self._joins = settings, scorer, joins
        self._open: "dict[Job, bool]" = {}
        self._queue: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._front: "deque[Job]" = deque()
        """Taken out of the queue and put back: these come first. Wake a thread after each, by ``None`` in the queue."""
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._lost: "list[Seat]" = []
        self._seats = [Seat(self.serve) for _ in range(settings.concurrency)]
        self._limits = [settings.timeout, settings.queue_wait, settings.scoring_timeout]
        self.watchdog = Watchdog()
        self.watchdog.add(self._check, *self._limits)
        self.on_batch: "Optional[Callable[[int, int], None]]" = None
        """Called on a prediction thread with how many requests and rows one call of ``run`` has."""
        self.on_run: "Optional[Callable[[float, bool], None]]" = None
        """Called after it with the seconds that it took, and whether it failed or was given up."""
        self.on_scoring: "Optional[Callable[[Sequence[str]], None]]" = None
        """Called on a prediction thread before it, with the ids of the requests."""
        self.on_lost: "Callable[[], None]" = lambda: None
        """Called on the event loop when a thread was given up and there may be no other in its place."""

    @property
    def waiting(self) -> int:
        """Requests that no prediction thread has taken yet."""
        return sum(not job.taken for job in self._open.copy())

    @property
    def manned(self) -> bool:
        """Whether there is a thread that scores; to be asked on the event loop."""
        return len(self._seats) == self._settings.concurrency or self._man()

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
        job = self.put(read, call)
        try:
            return await job.done
        finally:
            self._open.pop(job, None)

    def put(self, read: Read, call: Call, send: Optional[Send] = None) -> Job:
        """Let *call* wait its turn; *send* gets the reply first, on the thread that has it, then ``done`` is settled.

        What *send* raises is raised by ``done``.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        job = Job(read, call, send, self._loop.create_future())
        if len(self._seats) < self._settings.concurrency and not self._man():
            reply = replies.message(503, "the service is busy: its predictions hang; try again later")
            reply.headers.append(RETRY)
            _deliver([(job, _sent(job, reply))])
            return job
        self._open[job] = True
        if self.watchdog.timer is None:
            self.watchdog.start()
        self._queue.put(job)
        return job

    # On the prediction threads.

    def serve(self, seat: Seat) -> bool:
        """Score the jobs of one call of ``run``; ``False`` when the call was given up meanwhile."""
        group: "list[Job]" = []
        try:
            self._take(seat, group)
            if seat.given_up:
                self._put_back([job for job in group if job not in seat.seen])
                return False
            return self._run(seat, group) if group else True
        except BaseException as error:
            # A mistake of ours; a thread that ended with it would leave its seat empty. The replies come first.
            in_time = seat.end()
            if in_time:
                self._settle(group, [_raised() for _ in group])
            log_traceback(error)
            return in_time

    def _take(self, seat: Seat, group: "list[Job]") -> None:
        """Fill *group* with jobs that can be joined, read; what cannot be read is answered here."""
        rows, key, most = 0, None, self._settings.batch_rows
        while not seat.given_up:
            job = self._next(wait=not group)
            if job is None:
                return
            if type(job) is not Job:
                job()
                return
            if job not in self._open:
                continue
            job.taken = time.monotonic()
            group.append(job)
            if len(group) == 1:
                seat.current = Current(group, ())
            if job.work is None and not self._read(job):
                group.pop()
                if not group:
                    seat.end()
                continue
            work: Any = job.work
            if len(group) > 1 and (work.key is None or work.key != key or rows + work.rows > most or job.alone):
                group.pop()
                self._put_back([job])
                return
            key = work.key
            rows += work.rows
            if not self._joins or key is None or job.alone or rows >= most:
                return

    def _next(self, *, wait: bool) -> Any:
        """Return the next job, or ``None`` when there is none, or when something was put back."""
        while True:
            try:
                if self._front:
                    return self._front.popleft()
                if wait:
                    return self._queue.get()
                if self._queue.empty():
                    return None
                job = self._queue.get_nowait()
            except (IndexError, queue.Empty):
                # Another thread was quicker.
                continue
            if job is not None:
                return job

    def _read(self, job: Job) -> bool:
        try:
            if self.on_scoring is not None:
                self.on_scoring([job.call.request_id])
            job.work = job.read(job.call)
            return True
        except BaseException as error:
            self._settle([job], [_failure(error)])
            return False

    def _put_back(self, jobs: "Sequence[Job]") -> None:
        for job in reversed(jobs):
            job.taken = 0.0
            self._put_first(job)

    def _put_first(self, job: Any) -> None:
        self._front.appendleft(job)
        self._queue.put(None)

    def _run(self, seat: Seat, group: "list[Job]") -> bool:
        """Score *group* and answer it; when a joined call fails, each is scored alone, so that it fails alone."""
        now = time.monotonic()
        works: "list[Any]" = []
        for job in group:
            job.begun = now
            works.append(job.work)
        if self.on_batch is not None:
            self.on_batch(len(works), sum(work.rows for work in works))
        if len(group) == 1:
            return self._alone(seat, group[0])
        if self.on_scoring is not None:
            self.on_scoring([job.call.request_id for job in group])
        rows = [work.rows for work in works]
        begun = time.perf_counter()
        try:
            parts = self._scorer.split(self._scorer.run(self._scorer.join([work.data for work in works])), rows)
            if len(parts) != len(works):
                raise ValueError("{} results for {} requests".format(len(parts), len(works)))
        except BaseException:
            self._ran(seat, begun, failed=True)
            return self._each(seat, group)
        seconds = self._ran(seat, begun, failed=False)
        found = [_written(work, part, seconds) for work, part in zip(works, parts)]
        if not seat.end():
            return False
        self._settle(group, found)
        return True

    def _each(self, seat: Seat, group: "list[Job]") -> bool:
        for number, job in enumerate(group):
            job.begun = time.monotonic()
            if not seat.go_on(Current([job], group[number + 1 :])):
                return False
            if not self._alone(seat, job):
                return False
        return True

    def _alone(self, seat: Seat, job: Job) -> bool:
        work: Any = job.work
        if self.on_scoring is not None:
            self.on_scoring([job.call.request_id])
        begun = time.perf_counter()
        try:
            result = self._scorer.run(work.data)
        except BaseException as error:
            reply = _failure(error)
            reply.seconds = self._ran(seat, begun, failed=reply.failed)
        else:
            reply = _written(work, result, self._ran(seat, begun, failed=False))
        if not seat.end():
            return False
        self._settle([job], [reply])
        return True

    def _ran(self, seat: Seat, begun: float, *, failed: bool) -> float:
        seconds = time.perf_counter() - begun
        if self.on_run is not None and not seat.given_up:
            self.on_run(seconds, failed)
        return seconds

    def _settle(self, group: "list[Job]", found: "list[Reply]") -> None:
        """Answer *group*: on the event loop, but one that nobody waits with is sent from this thread, which is sooner.

        Each reply wakes the threads that write it. While many clients wait, fewer and fuller batches are worth more.
        """
        settled: "list[tuple[Job, Any]]" = [
            (job, reply) for job, reply in zip(group, found) if self._open.pop(job, False)
        ]
        if not settled:
            return
        deliver = _deliver_all
        if len(settled) == 1 and not self._open:
            deliver, settled = _deliver, [(job, _sent(job, reply)) for job, reply in settled]
        loop: Any = self._loop
        try:
            loop.call_soon_threadsafe(deliver, settled)
        except RuntimeError:
            # The loop has ended, and the connections with it.
            pass

    # On the event loop: limits.

    def _check(self, now: float) -> Optional[float]:
        """Answer what has passed a limit, give up the threads that hang with it; return when to look again."""
        settings = self._settings
        due = []
        for job in self._open.copy():
            if settings.timeout:
                due.append(job.arrived + settings.timeout)
                if due[-1] <= now:
                    self._refuse(job, 504, "the request took more than its limit of {:g} ms", settings.timeout)
            if settings.queue_wait and not job.begun:
                due.append(job.arrived + settings.queue_wait)
                if due[-1] <= now:
                    sentence = "the service is busy: the request waited {:g} ms, its limit; try again later"
                    self._refuse(job, 503, sentence, settings.queue_wait)
        for seat in list(self._seats):
            moment = self._watch(seat, now)
            if moment is not None:
                due.append(moment)
        self._purge()
        later = [moment for moment in due if moment > now]
        return min(later, default=float("inf")) if self._open else None

    def _watch(self, seat: Seat, now: float) -> Optional[float]:
        """Give up the call of *seat* if it is over its limit, or if nobody waits for it any more after that time."""
        current = seat.current
        jobs = list(current.jobs) if current is not None else []
        if current is None or not jobs:
            return None
        # Each reading has its limit, and so has the run of them all; the last one tells which of these goes on.
        began = max(jobs[-1].taken, jobs[-1].begun)
        limit = self._settings.scoring_timeout or float("inf")
        if began + limit <= now or self._forsaken(jobs, current.rest, now):
            if seat.give_up(current):
                self._replace(seat, current, now - began)
            return None
        return began + limit

    def _forsaken(self, jobs: "list[Job]", rest: "Sequence[Job]", now: float) -> bool:
        timeout = self._settings.timeout
        late = bool(timeout) and all(job.begun and job.arrived + timeout <= now for job in jobs)
        return late and not any(job in self._open for job in [*jobs, *rest])

    def _replace(self, seat: Seat, current: Current, seconds: float) -> None:
        """Answer what *seat* hangs with, put back the others, and let another thread have its place.

        Whoever makes a joined call hang shows when each is run alone; so does a call that took long only by its size.
        """
        if self.on_run is not None:
            self.on_run(seconds, True)
        log.warning("a prediction was given up after %.0f ms; it is at\n%s", seconds * 1000, seat.stack())
        self._seats.remove(seat)
        self._lost.append(seat)
        for job in seat.seen:
            if job.work is None or len(seat.seen) == 1:
                limit = self._settings.scoring_timeout
                self._refuse(job, 500, "scoring took more than its limit of {:g} ms", limit, seconds)
        innocent = [job for job in [*seat.seen, *current.rest] if job in self._open]
        for job in innocent:
            job.alone = job.alone or bool(job.begun)
        self._put_back(innocent)
        manned = self._man()
        if len(self._seats) < self._settings.concurrency:
            self.on_lost()
        if not manned:
            for job in self._open.copy():
                self._refuse(job, 503, "the service is busy: its predictions hang for more than {:g} ms", seconds)

    def _man(self) -> bool:
        """Fill the seats again as far as that is allowed; tell whether there is one."""
        self._lost = [seat for seat in self._lost if seat.alive]
        while len(self._seats) < self._settings.concurrency and len(self._lost) < MOST_LOST:
            self._seats.append(Seat(self.serve))
        return bool(self._seats)

    def _purge(self) -> None:
        """Drop what was answered while it waited, so that it does not pile up behind a prediction that hangs."""
        while True:
            try:
                job = self._front.popleft() if self._front else self._queue.get_nowait()
            except (IndexError, queue.Empty):
                return
            if job is not None and (type(job) is not Job or job in self._open):
                self._put_first(job)
                return

    def _refuse(self, job: Job, status: int, sentence: str, limit: float, seconds: float = 0.0) -> None:
        if not self._open.pop(job, False):
            return
        reply = replies.message(status, sentence.format(limit * 1000))
        reply.failed, reply.seconds = bool(job.begun), seconds
        if status == 503:
            reply.headers.append(RETRY)
        _deliver([(job, _sent(job, reply))])


RETRY = ("retry-after", "1")


def _deliver(settled: "list[tuple[Job, Any]]") -> None:
    for job, outcome in settled:
        if job.done.done():
            continue
        if isinstance(outcome, Reply):
            job.done.set_result(outcome)
        else:
            job.done.set_exception(outcome)


def _deliver_all(settled: "list[tuple[Job, Any]]") -> None:
    _deliver([(job, _sent(job, reply)) for job, reply in settled])


def _sent(job: Job, reply: Reply) -> Any:
    """Send *reply* and return it, or the error that this raised."""
    if job.send is None:
        return reply
    try:
        job.send(reply)
        return reply
    except Exception as error:
        return error


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
    return _raised()


def _raised() -> Reply:
    reply = replies.message(500, "the model's code raised an error; the log of the service has the traceback")
    reply.failed = True
    return reply
