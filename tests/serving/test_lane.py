"""The lane: requests go in, each gets its own reply, whatever the others do and however they are joined."""

from __future__ import annotations

import asyncio
import io
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageway.contract import Contract
from stageway.serving import joining, replies
from stageway.serving.lane import MOST_LOST, Lane
from stageway.serving.replies import BadRequestError, Reply
from stageway.serving.scorer import Alone, Call, ScoringError, Work
from stageway.serving.settings import Settings

PATIENCE = 60.0


def call(value: Any) -> Call:
    return Call("POST", "/score", orjson.dumps(value), "", "application/json", dict)


class Doubling(Alone):
    """Doubles rows of numbers; the body says ``{"key": ..., "rows": [...], "bad": ..., "wait": NAME}``.

    ``bad`` raises, ``wait`` makes the call of ``run`` wait for the gate of that name, ``alone`` only when it is run
    alone, ``together`` only when it is joined; ``wait_read`` makes ``read`` wait.
    """

    contract = Contract()
    declared: dict[str, Any] | None = None

    def __init__(self) -> None:
        self.gates: dict[str, threading.Event] = {name: threading.Event() for name in ("one", "two")}
        self.entered: Counter[str] = Counter()
        self.calls: list[list[int]] = []
        """The numbers of rows that were joined in each call of ``run``."""
        self.threads: set[int] = set()
        self.now = self.most = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        self.threads.add(threading.get_ident())

    def read(self, call: Call) -> Work:
        asked = orjson.loads(call.body)
        if "wait_read" in asked:
            self.wait(asked["wait_read"])
        if asked.get("bad") == "body":
            raise BadRequestError("no")
        rows = np.array(asked["rows"], dtype=float)
        return Work([(asked, rows)], lambda result: replies.of(result[0][1]), asked.get("key"), len(rows))

    def run(self, data: Any) -> Any:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.calls.append([len(rows) for _, rows in data])
            self.threads.add(threading.get_ident())
        try:
            for asked, _ in data:
                if "wait" in asked:
                    self.wait(asked["wait"])
                if "together" in asked and len(data) > 1:
                    self.wait(asked["together"])
                if "alone" in asked and len(data) == 1:
                    self.wait(asked["alone"])
            if any("bad" in asked for asked, _ in data):
                raise ScoringError("bad")
            return [(asked, rows * 2) for asked, rows in data]
        finally:
            with self._lock:
                self.now -= 1

    def wait(self, gate: str) -> None:
        self.entered[gate] += 1
        assert self.gates[gate].wait(PATIENCE)

    def join(self, parts: list[Any]) -> Any:
        assert len({part[0][0].get("key") for part in parts}) == 1
        return [one for part in parts for one in part]

    def split(self, result: Any, rows: list[int]) -> list[Any]:
        return [[one] for one in result]


@pytest.fixture
def scorer() -> Iterator[Doubling]:
    scorer = Doubling()
    yield scorer
    for gate in scorer.gates.values():
        gate.set()


async def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.002)


def together(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), PATIENCE)

    asyncio.run(bounded())


def ask(lane: Lane, scorer: Doubling, **asked: Any) -> asyncio.Task[Reply]:
    return asyncio.create_task(lane.score(scorer.read, call({"rows": [1.0], **asked})))


def test_start_and_predictions_share_a_thread(scorer: Doubling) -> None:
    lane = Lane(Settings(), scorer, joins=True)
    lane.call(scorer.start)

    async def work() -> None:
        found = await asyncio.gather(*(ask(lane, scorer, rows=[number], key="k") for number in range(20)))
        assert [reply.body for reply in found] == [b"[%d.0]" % (2 * number) for number in range(20)]

    together(work)
    assert len(scorer.threads) == 1
    assert threading.get_ident() not in scorer.threads


def test_what_start_raises_is_raised_to_who_waits(scorer: Doubling) -> None:
    lane = Lane(Settings(), scorer, joins=False)

    def stop() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        lane.call(stop)
    lane.call(scorer.start)


def test_what_waits_is_joined_up_to_the_cap_and_a_larger_request_goes_alone(scorer: Doubling) -> None:
    lane = Lane(Settings(batch_rows=4), scorer, joins=True)

    async def work() -> None:
        first = ask(lane, scorer, wait="one")
        await until(lambda: scorer.entered["one"])
        sizes = [1, 1, 1, 1, 1, 3, 9, 1, 2]
        rest = [ask(lane, scorer, rows=[number] * size, key="k") for number, size in enumerate(sizes)]
        await until(lambda: lane.waiting == len(sizes))
        scorer.gates["one"].set()
        for number, size in enumerate(sizes):
            assert (await rest[number]).body == orjson.dumps([2.0 * number] * size)
        await first

    together(work)
    assert scorer.calls == [[1], [1, 1, 1, 1], [1, 3], [9], [1, 2]]


def test_only_works_of_one_key_are_joined_and_never_where_the_scorer_joins_nothing(scorer: Doubling) -> None:
    for joins, expected in (
        (True, [[1], [1, 1], [1], [1], [1], [1]]),
        (False, [[1], [1], [1], [1], [1], [1], [1]]),
    ):
        scorer.calls, scorer.entered = [], Counter()
        scorer.gates["one"].clear()
        lane = Lane(Settings(), scorer, joins=joins)

        async def work(lane: Lane = lane) -> None:
            tasks = [ask(lane, scorer, wait="one")]
            await until(lambda: scorer.entered["one"])
            tasks += [ask(lane, scorer, key=key) for key in ("a", "a", "b", None, None, "a")]
            await until(lambda: lane.waiting == 6)
            scorer.gates["one"].set()
            await asyncio.gather(*tasks)

        together(work)
        assert scorer.calls == expected


def test_a_bad_request_in_a_batch_fails_alone(scorer: Doubling) -> None:
    lane = Lane(Settings(), scorer, joins=True)

    async def work() -> None:
        tasks = [ask(lane, scorer, wait="one")]
        await until(lambda: scorer.entered["one"])
        tasks += [ask(lane, scorer, key="k", rows=[number]) for number in range(3)]
        tasks += [ask(lane, scorer, key="k", bad="run"), ask(lane, scorer, key="k", bad="body")]
        scorer.gates["one"].set()
        found = await asyncio.gather(*tasks)
        assert [reply.status for reply in found] == [200, 200, 200, 200, 500, 400]
        assert [reply.body for reply in found[1:4]] == [b"[0.0]", b"[2.0]", b"[4.0]"]
        assert [reply.failed for reply in found] == [False] * 4 + [True, False]

    together(work)


def test_a_result_of_another_length_is_not_cut_up(scorer: Doubling) -> None:
    class Summing(Doubling):
        def split(self, result: Any, rows: list[int]) -> list[Any]:
            return joining.split(np.array([1.0]), rows)

    summing = Summing()
    lane = Lane(Settings(), summing, joins=True)

    async def work() -> None:
        tasks = [ask(lane, summing, wait="one")]
        await until(lambda: summing.entered["one"])
        tasks += [ask(lane, summing, key="k", rows=[number]) for number in range(3)]
        await until(lambda: lane.waiting == 3)
        summing.gates["one"].set()
        assert [reply.body for reply in await asyncio.gather(*tasks)] == [b"[2.0]", b"[0.0]", b"[2.0]", b"[4.0]"]

    together(work)
    assert summing.calls == [[1], [1, 1, 1], [1], [1], [1]]


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.integers(-1000, 1000), min_size=0, max_size=5),
            st.sampled_from(["a", "b", None]),
            st.sampled_from([None, None, None, None, "run", "body"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=40,
    ),
    concurrency=st.integers(1, 3),
    cap=st.integers(1, 9),
    joins=st.booleans(),
)
def test_no_reply_is_lost_swapped_or_merged(
    requests: list[tuple[list[int], str | None, str | None, bool]], concurrency: int, cap: int, joins: bool
) -> None:
    scorer = Doubling()
    lane = Lane(Settings(concurrency=concurrency, batch_rows=cap), scorer, joins=joins)
    sent: list[tuple[int, bytes]] = []

    async def one(number: int) -> Reply:
        rows, key, bad, pause = requests[number]
        asked = {"key": key, "rows": rows, **({"bad": bad} if bad else {})}
        if pause:
            await asyncio.sleep(0)
        return await lane.put(scorer.read, call(asked), lambda reply: sent.append((number, reply.body))).done

    async def work() -> None:
        found = await asyncio.gather(*map(one, range(len(requests))))
        for number, (rows, _, bad, _) in enumerate(requests):
            assert found[number].status == {None: 200, "run": 500, "body": 400}[bad]
            if not bad:
                assert found[number].body == orjson.dumps([2.0 * value for value in rows])
        assert sorted(sent) == [(number, found[number].body) for number in range(len(requests))]

    together(work)
    assert not lane._open
    assert scorer.most <= concurrency
    for sizes in scorer.calls:
        assert len(sizes) == 1 or (joins and sum(sizes) <= cap)


class Hesitating(queue.SimpleQueue):  # type: ignore[type-arg]
    """Gives other threads the time to be quicker, between the look whether more waits and the taking."""

    def empty(self) -> bool:
        found = super().empty()
        time.sleep(0.001)
        return found


def test_threads_that_look_for_the_same_last_request_do_not_wait_for_it(
    scorer: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(queue, "SimpleQueue", Hesitating)
        lane = Lane(Settings(concurrency=4), scorer, joins=True)

    async def work() -> None:
        for _ in range(30):
            await asyncio.gather(*(ask(lane, scorer, key="k") for _ in range(5)))

    together(work)


# Limits.


def test_a_call_that_hangs_is_given_up_with_all_that_it_held_and_the_next_are_scored(scorer: Doubling) -> None:
    lane = Lane(Settings(scoring_timeout=0.15), scorer, joins=True)

    async def work() -> None:
        first = ask(lane, scorer, wait="one")
        await until(lambda: scorer.entered["one"])
        held = [ask(lane, scorer, key="k", wait="two"), ask(lane, scorer, key="k"), ask(lane, scorer, key="l")]
        found = await asyncio.gather(first, *held)
        # The call of the two that were joined is given up too, and then each of them shows whether it hangs.
        assert [reply.status for reply in found] == [500, 500, 200, 200]
        assert found[0].body == b'{"message":"scoring took more than its limit of 150 ms"}'
        assert found[0].failed
        assert (await ask(lane, scorer)).status == 200
        assert not lane._open

    together(work)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The time as the lane sees it, in ``now``; it passes only when a test says so."""

    class Clock:
        now = 1000.0
        monotonic = perf_counter = staticmethod(lambda: Clock.now)

    monkeypatch.setattr("stageway.serving.lane.time", Clock)
    return Clock


def test_each_reading_has_the_limit_and_so_has_the_run_of_them_all(clock: Any) -> None:
    class Slow(Doubling):
        def read(self, call: Call) -> Work:
            clock.now += 70.0
            return super().read(call)

    scorer = Slow()
    lane = Lane(Settings(scoring_timeout=100.0), scorer, joins=True)

    async def work() -> None:
        first = ask(lane, scorer, wait="one")
        await until(lambda: scorer.entered["one"])
        rest = [ask(lane, scorer, key="k", wait="two"), ask(lane, scorer, key="k")]
        await until(lambda: lane.waiting == 2)
        scorer.gates["one"].set()
        await until(lambda: scorer.entered["two"])
        clock.now += 70.0
        lane._check(clock.now)
        scorer.gates["two"].set()
        assert [reply.status for reply in await asyncio.gather(first, *rest)] == [200, 200, 200]

    try:
        together(work)
    finally:
        scorer.gates["one"].set()
        scorer.gates["two"].set()
    assert scorer.calls == [[1], [1, 1]]


def test_a_joined_call_that_takes_long_is_given_up_and_its_requests_are_scored_alone(
    scorer: Doubling, clock: Any
) -> None:
    lane = Lane(Settings(scoring_timeout=100.0), scorer, joins=True)

    async def work() -> None:
        first = ask(lane, scorer, wait="one")
        await until(lambda: scorer.entered["one"])
        rest = [ask(lane, scorer, key="k", rows=[number], together="two") for number in range(3)]
        await until(lambda: lane.waiting == 3)
        scorer.gates["one"].set()
        await until(lambda: scorer.entered["two"])
        clock.now += 200.0
        lane._check(clock.now)
        assert [reply.body for reply in await asyncio.gather(first, *rest)] == [b"[2.0]", b"[0.0]", b"[2.0]", b"[4.0]"]

    together(work)
    assert scorer.calls == [[1], [1, 1, 1], [1], [1], [1]]


def test_what_was_put_back_is_counted_once(scorer: Doubling) -> None:
    lane = Lane(Settings(), scorer, joins=True)

    async def work() -> None:
        tasks = [ask(lane, scorer, wait="one")]
        await until(lambda: scorer.entered["one"])
        tasks += [ask(lane, scorer, key="k", wait="two"), ask(lane, scorer, key="l"), ask(lane, scorer)]
        await until(lambda: lane.waiting == 3)
        scorer.gates["one"].set()
        await until(lambda: scorer.entered["two"])
        assert lane.waiting == 2
        scorer.gates["two"].set()
        await asyncio.gather(*tasks)
        assert lane.waiting == 0

    together(work)


@pytest.mark.parametrize("hook", ["on_scoring", "on_batch", "on_run"])
def test_a_hook_that_raises_fails_its_request_and_leaves_the_thread(scorer: Doubling, hook: str) -> None:
    lane = Lane(Settings(), scorer, joins=True)

    def broken(*arguments: Any) -> None:
        setattr(lane, hook, None)
        raise RuntimeError("no hook")

    setattr(lane, hook, broken)

    async def work() -> None:
        assert [(await ask(lane, scorer)).status for _ in range(2)] == [500, 200]

    together(work)


def test_a_log_that_cannot_be_written_costs_no_thread(scorer: Doubling, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    lane = Lane(Settings(), scorer, joins=True)
    monkeypatch.setattr("sys.stderr", Full())
    monkeypatch.setattr("sys.__stderr__", sys.stderr)

    async def work() -> None:
        # No rows: what reads the body raises, and that is logged.
        assert [(await ask(lane, scorer, rows=rows)).status for rows in ("x", [1.0])] == [500, 200]

    together(work)


def test_a_body_whose_reading_hangs_is_given_up_alone(scorer: Doubling) -> None:
    lane = Lane(Settings(scoring_timeout=0.15), scorer, joins=True)

    async def work() -> None:
        first = ask(lane, scorer, wait="two")
        await until(lambda: scorer.entered["two"])
        good, bad = ask(lane, scorer, key="k"), ask(lane, scorer, key="k", wait_read="one")
        after = ask(lane, scorer, key="k")
        await until(lambda: lane.waiting == 3)
        scorer.gates["two"].set()
        found = await asyncio.gather(first, good, bad, after)
        assert [reply.status for reply in found] == [200, 200, 500, 200]

    together(work)


def test_one_that_hangs_only_alone_does_not_take_the_rest_of_its_batch_with_it(scorer: Doubling) -> None:
    lane = Lane(Settings(scoring_timeout=0.15), scorer, joins=True)

    async def work() -> None:
        first = ask(lane, scorer, wait="two")
        await until(lambda: scorer.entered["two"])
        rest = [ask(lane, scorer, key="k", rows=[number]) for number in (1, 2)]
        rest.insert(1, ask(lane, scorer, key="k", alone="one", bad="run"))
        await until(lambda: lane.waiting == 3)
        scorer.gates["two"].set()
        found = await asyncio.gather(first, *rest)
        assert [reply.status for reply in found] == [200, 200, 500, 200]
        assert (found[1].body, found[3].body) == (b"[2.0]", b"[4.0]")

    together(work)


def test_a_call_that_ends_after_it_was_given_up_answers_nobody(scorer: Doubling) -> None:
    lane = Lane(Settings(scoring_timeout=0.1), scorer, joins=True)
    sent: list[int] = []

    async def work() -> None:
        late = call({"rows": [1.0], "wait": "one"})
        assert (await lane.put(scorer.read, late, lambda reply: sent.append(reply.status)).done).status == 500
        scorer.gates["one"].set()
        await until(lambda: not any(seat.alive for seat in lane._lost))
        assert (await ask(lane, scorer)).status == 200

    together(work)
    assert sent == [500]


def test_waiting_too_long_is_503_and_taking_too_long_504(scorer: Doubling) -> None:
    lane = Lane(Settings(queue_wait=0.1, timeout=0.4), scorer, joins=True)

    async def work() -> None:
        slow = ask(lane, scorer, wait="one")
        await until(lambda: scorer.entered["one"])
        waiting = [ask(lane, scorer) for _ in range(3)]
        for reply in await asyncio.gather(*waiting):
            assert (reply.status, ("retry-after", "1") in reply.headers) == (503, True)
            assert b"the request waited 100 ms" in reply.body
        assert not slow.done()
        reply = await slow
        assert (reply.status, reply.body) == (504, b'{"message":"the request took more than its limit of 400 ms"}')
        # Nobody waits for the hanging call any more, so its thread was replaced.
        assert (await ask(lane, scorer)).status == 200
        assert not lane._open
        assert lane.waiting == 0

    together(work)


def test_threads_that_never_end_do_not_pile_up(scorer: Doubling) -> None:
    lane = Lane(Settings(scoring_timeout=0.05), scorer, joins=False)
    lost: list[bool] = []
    lane.on_lost = lambda: lost.append(lane.manned)

    async def work() -> None:
        for _ in range(MOST_LOST):
            assert lane.manned
            assert not lost
            assert (await ask(lane, scorer, wait="one")).status == 500
        assert lost == [False]
        reply = await ask(lane, scorer)
        assert (reply.status, ("retry-after", "1") in reply.headers) == (503, True)
        assert sum(thread.name == "prediction" for thread in threading.enumerate()) >= MOST_LOST
        scorer.gates["one"].set()
        await until(lambda: not any(seat.alive for seat in lane._lost))
        assert (await ask(lane, scorer)).status == 200

    together(work)


def test_a_cancelled_request_leaves_nothing_behind(scorer: Doubling) -> None:
    lane = Lane(Settings(), scorer, joins=True)

    async def work() -> None:
        running = ask(lane, scorer, wait="one")
        await until(lambda: scorer.entered["one"])
        waiting = ask(lane, scorer, key="k")
        await until(lambda: lane.waiting == 1)
        running.cancel()
        waiting.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        assert not lane._open
        scorer.gates["one"].set()
        assert (await ask(lane, scorer)).status == 200

    together(work)
    assert scorer.calls == [[1], [1]]


def test_there_is_one_timer_at_most_and_none_when_nothing_is_open(scorer: Doubling) -> None:
    lane = Lane(Settings(timeout=0.05), scorer, joins=True)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        later = loop.call_later

        def counted(delay: float, *rest: Any, **more: Any) -> Any:
            timers.append(delay)
            return later(delay, *rest, **more)

        loop.call_later = counted  # type: ignore[assignment, method-assign]
        await asyncio.gather(*(lane.score(scorer.read, call({"rows": [1.0]})) for _ in range(50)))
        assert len(timers) == 1
        await asyncio.sleep(0)
        loop.call_later = later  # type: ignore[method-assign]
        await until(lambda: lane.watchdog.timer is None)

    together(work)


def test_what_a_hook_of_the_reply_raises_is_raised_to_the_request_alone(scorer: Doubling) -> None:
    lane = Lane(Settings(), scorer, joins=True)

    def refuse(reply: Reply) -> None:
        raise ValueError("no such header")

    async def work() -> None:
        with pytest.raises(ValueError, match="no such header"):
            await lane.put(scorer.read, call({"rows": [1.0]}), refuse).done
        assert (await ask(lane, scorer)).status == 200

    together(work)


def test_the_hooks_learn_of_every_call_of_run(scorer: Doubling) -> None:
    lane = Lane(Settings(), scorer, joins=True)
    batches: list[tuple[int, int]] = []
    runs: list[bool] = []
    lane.on_batch = lambda requests, rows: batches.append((requests, rows))
    lane.on_run = lambda seconds, failed: runs.append(failed)

    async def work() -> None:
        tasks = [ask(lane, scorer, wait="one")]
        await until(lambda: scorer.entered["one"])
        tasks += [ask(lane, scorer, key="k", rows=[1, 2]), ask(lane, scorer, key="k", bad="run")]
        await until(lambda: lane.waiting == 2)
        scorer.gates["one"].set()
        await asyncio.gather(*tasks)

    together(work)
    assert batches == [(1, 1), (2, 3)]
    assert runs == [False, True, False, True]
