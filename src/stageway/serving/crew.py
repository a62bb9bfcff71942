"""The workers of one service, seen from the parent: started, replaced one by one, restarted, stopped.

A worker is replaced in this order: its successor starts, gets ready and takes connections from the queue that both
share; then the old one takes no more, answers what it has and ends. At the first start a worker that fails ends the
service: trying again would give the same answer, and whoever started us wants to know. At a reload it ends the reload,
and the workers from before go on.

Contract with whoever reloads: SIGHUP to the parent process starts a reload, as often as wanted; one that comes during a
start or a reload starts another one after it. Each ends with one line on stderr, ``stageway-serving: `` and then
``reloaded, N workers`` or ``not reloaded: WHY; the workers from before go on``, after which a SIGHUP for mended code
is welcome.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from multiprocessing import Pipe, connection
from typing import Any, Callable

from stageway.serving import duty, helpers, logs, tls, worker
from stageway.serving.address import Address
from stageway.serving.control import ControlFile
from stageway.serving.scorer import StartError
from stageway.serving.settings import Settings
from stageway.serving.terminal import Terminal

SECOND = 1.0
LISTEN_SECONDS = 10.0
QUICK = 10.0
"""A worker that ends within so many seconds is started again after a pause."""
LONGEST_PAUSE = 10.0
STARTING, SERVING, LEAVING = "starting", "serving", "leaving"

Spawn = Callable[[int, Callable[[], Any]], Any]
"""From a worker's number and what it loads to a process that is not started yet."""


class Member:
    """One worker process and the parent's ends of its two pipes."""

    def __init__(self, seat: int, settings: Settings, address: object, spawn: Spawn) -> None:
        self.seat, self.state, self.why = seat, STARTING, ""
        self.reports, reports = Pipe(duplex=False)
        orders, self.orders = Pipe(duplex=False)
        self.process = spawn(seat, functools.partial(worker.load, settings, reports, orders, address))
        self.process.start()
        self.ending = _ending(self.process)
        """Readable when the process has ended; its sentinel is not as long as a helper that it forked lives."""
        self.helpers: "dict[int, str]" = {}
        reports.close()
        orders.close()
        self.born = self.heard = time.monotonic()
        self.deadline = float("inf")
        self.told = False

    @property
    def ended(self) -> bool:
        return self.process.exitcode is not None

    def kill(self) -> None:
        self.helpers = helpers.below(self.process.pid)
        self.process.kill()

    def leave(self, seconds: float) -> None:
        """Take no more connections, answer what is there, end within *seconds*."""
        self.state, self.deadline = LEAVING, time.monotonic() + seconds
        try:
            self.orders.send(duty.LEAVE)
        except OSError:
            pass  # it has ended already, which its sentinel says

    def stop(self, seconds: float) -> None:
        """Take no more connections, finish the requests that are in flight, end within *seconds*."""
        if self.state == STARTING:
            # It has nothing to finish, and may lose the signal.
            seconds = min(seconds, SECOND)
        self.state, self.told, self.deadline = LEAVING, True, time.monotonic() + seconds
        self.process.terminate()

    def close(self) -> str:
        """Forget a process that has ended; return how that was."""
        self.process.join()
        helpers.end(self.helpers)
        if self.ending != self.process.sentinel:
            os.close(self.ending)
        self.reports.close()
        self.orders.close()
        code = self.process.exitcode
        if code is not None and code < 0:
            return "ended by signal {} ({})".format(-code, signal.Signals(-code).name)
        return "ended with exit code {}".format(code)


def _ending(process: Any) -> int:
    try:
        return os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return int(process.sentinel)


class Crew:
    """Keeps one worker on every seat until a signal says stop; ``failure`` is why it stopped by itself."""

    def __init__(self, settings: Settings, control: ControlFile, address: Address, terminal: Terminal) -> None:
        self._settings, self._control, self._address = settings, control, address
        self._members: "list[Member]" = []
        self._vacant: "dict[int, float]" = {}
        self._to_replace: "list[int]" = []
        self._quick_ends = 0
        self._published = self._stopping = self._reload = False
        self._watch = tls.Watch(settings.tls_certificate, settings.tls_key)
        self._next_look = 0.0
        self._terminal = terminal
        self._wake, self._waker = os.pipe()
        self.failure = ""

    def run(self, spawn: Spawn) -> None:
        """Serve until SIGTERM or SIGINT, or until nothing is left that can."""
        self._spawn = spawn
        os.set_blocking(self._waker, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        if self._terminal.signalled:
            self._signalled(signal.SIGHUP, None)
        for seat in range(self._settings.workers):
            self._start(seat)
        while self._members or (self._vacant and not self._stopping):
            self._turn()

    # What happens.

    def _signalled(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP and not self._terminal.hung_up():
            self._reload = True
        else:
            self._stopping = True
        try:
            os.write(self._waker, b"!")
        except BlockingIOError:
            pass

    def _turn(self) -> None:
        began = time.monotonic()
        endings = [member.ending for member in self._members]
        lifeline = [self._settings.lifeline] if self._settings.lifeline >= 0 and not self._stopping else []
        reports = [member.reports for member in self._members]
        ready = connection.wait([*endings, *reports, *lifeline, self._wake], SECOND)
        if self._wake in ready:
            os.read(self._wake, 4096)
        if lifeline and lifeline[0] in ready:
            # Nothing is ever written to it: whoever started us is gone.
            self._stopping = True
        if time.monotonic() - began > 2 * SECOND:
            # This process was stopped for a while, so that nobody could be heard.
            for member in self._members:
                member.heard = time.monotonic()
        for member in list(self._members):
            # Asked first, so that whatever it has said is there to be read.
            ended = member.ending in ready or member.ended
            if ended or member.reports in ready:
                self._listen(member)
            if ended:
                self._members.remove(member)
                self._ended(member, member.close())
        if self._stopping:
            self._stop()
        else:
            self._look_after()
        self._control.serving = sum(member.state == SERVING for member in self._members)

    def _listen(self, member: Member) -> None:
        while True:
            try:
                if not member.reports.poll():
                    return
                # Never unpickled: the worker runs whatever its model brings along.
                kind, text = json.loads(member.reports.recv_bytes(duty.LONGEST_REPORT))
            except (EOFError, OSError):
                return  # that it has ended is seen elsewhere
            except (ValueError, TypeError):
                continue  # not from us
            member.heard = time.monotonic()
            if kind == duty.FAILED:
                member.why = str(text)
            elif kind == duty.READY and member.state == STARTING:
                self._ready(member)
            elif kind == duty.HANGS and member.state == SERVING:
                self._hangs(member)

    def _ready(self, member: Member) -> None:
        member.state = SERVING
        for other in self._members:
            if other.seat == member.seat and other is not member and other.state == SERVING:
                other.leave(duty.LINGER + self._settings.stop_timeout)
        if not self._published:
            if sum(one.state == SERVING for one in self._members) == self._settings.workers:
                self._publish()
        elif self._to_replace and self._to_replace[0] == member.seat:
            self._to_replace.pop(0)
            if not self._to_replace:
                self._say("reloaded, {}".format(self._count()))

    def _hangs(self, member: Member) -> None:
        """Let a worker be replaced that has no thread left to score with; its successor comes first."""
        coming = any(one.seat == member.seat and one.state == STARTING for one in self._members)
        if self._published and not coming and member.seat not in self._vacant:
            self._say("worker {} has too many predictions that hang; another is started".format(member.seat + 1))
            self._leave_vacant(member)

    def _ended(self, member: Member, how: str) -> None:
        if self._stopping or member.state == LEAVING:
            return
        others = any(one.state == SERVING for one in self._members)
        if member.state == STARTING:
            why = member.why or "a worker {} before it was ready; the log above may say why".format(how)
            if not others or not self._published:
                self._fail(why)
            elif self._to_replace and any(one.seat == member.seat for one in self._members):
                self._to_replace.clear()
                self._say("not reloaded: {}; the workers from before go on".format(why))
            else:
                self._to_replace.clear()
                self._say("worker {} does not start: {}".format(member.seat + 1, why))
                self._leave_vacant(member)
        elif any(one.seat == member.seat for one in self._members):
            # Its successor is on the way already.
            self._say("worker {} {}".format(member.seat + 1, how))
        else:
            self._say("worker {} {}; another is started".format(member.seat + 1, how))
            self._leave_vacant(member)

    # What is done about it.

    def _start(self, seat: int) -> None:
        try:
            tls.check(self._settings)
            logs.drop_unwritten()
            member = Member(seat, self._settings, self._address.socket.getsockname(), self._spawn)
        except StartError as error:
            self._not_started(seat, error.message)
        except OSError as error:
            self._not_started(seat, "a process cannot be started: {}".format(error.strerror))
        else:
            self._members.append(member)

    def _not_started(self, seat: int, why: str) -> None:
        replaced = bool(self._to_replace)
        self._to_replace.clear()
        if not any(one.state == SERVING for one in self._members):
            self._fail(why)
        elif replaced:
            self._say("not reloaded: {}; the workers from before go on".format(why))
        else:
            self._say("worker {} does not start: {}".format(seat + 1, why))
            self._pause(seat)

    def _leave_vacant(self, member: Member) -> None:
        if time.monotonic() - member.born < QUICK:
            self._pause(member.seat)
        else:
            self._quick_ends = 0
            self._vacant[member.seat] = 0.0

    def _pause(self, seat: int) -> None:
        pause = min(LONGEST_PAUSE, 0.25 * 2**self._quick_ends) if self._quick_ends else 0.0
        self._quick_ends += 1
        self._vacant[seat] = time.monotonic() + pause

    def _look_after(self) -> None:
        now, settings = time.monotonic(), self._settings
        for member in self._members:
            silent = now - member.heard
            if member.state == SERVING and settings.worker_timeout and silent > settings.worker_timeout:
                sentence = "worker {} did not answer for {:g} s and is killed"
                self._say(sentence.format(member.seat + 1, settings.worker_timeout))
                member.kill()
                member.heard = now
            if now > member.deadline:
                member.kill()
        for seat in [seat for seat, at in self._vacant.items() if at <= now]:
            del self._vacant[seat]
            self._start(seat)
        if now >= self._next_look:
            self._next_look = now + SECOND
            for member in self._members:
                member.helpers = helpers.below(member.process.pid)
            self._reload = self._watch.changed() or self._reload
        starting = self._vacant or any(member.state == STARTING for member in self._members)
        if self._reload and self._published and not starting and not self._to_replace:
            self._reload = False
            self._to_replace = list(range(settings.workers))
        # Workers that leave have a slot until they are gone.
        if self._to_replace and not starting and len(self._members) < self._control.slots:
            self._start(self._to_replace[0])

    def _publish(self) -> None:
        end = time.monotonic() + LISTEN_SECONDS
        while not self._address.taken:
            if self._stopping or time.monotonic() > end:
                self._fail("its workers are ready and do not listen; the log above may say why")
                return
            time.sleep(0.002)
        try:
            self._address.publish()
        except OSError as error:
            self._fail("{}: {}".format(self._address.text, error.strerror))
            return
        self._published = self._control.ready = True
        self._say("ready on {}, {}".format(self._address.text, self._count()))

    def _fail(self, sentence: str) -> None:
        if not self._stopping:
            self.failure = sentence
        self._stopping = True

    def _stop(self) -> None:
        self._control.ready = False
        for member in self._members:
            if not member.told:
                member.stop(self._settings.stop_timeout)
            elif time.monotonic() > member.deadline:
                member.kill()

    def _count(self) -> str:
        return "1 worker" if self._settings.workers == 1 else "{} workers".format(self._settings.workers)

    def _say(self, sentence: str, level: str = "INFO") -> None:
        logs.say(self._settings.log_format, sentence, level)
