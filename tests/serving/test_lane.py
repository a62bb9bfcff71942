"""The lane: requests go in, each gets its own reply, one call of run at a time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from stageway.contract import Contract
from stageway.serving import replies
from stageway.serving.lane import Lane
from stageway.serving.replies import Reply
from stageway.serving.scorer import Alone, Call, Work
from stageway.serving.settings import Settings


def call(text: str) -> Call:
    return Call("POST", "/score", text.encode(), "", "application/json", dict)


class Busy(Alone):
    """Answers with the body, and never twice at once."""

    contract = Contract()
    declared: dict[str, Any] | None = None

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.threads: set[int] = set()

    def start(self) -> None:
        self.threads.add(threading.get_ident())

    def read(self, call: Call) -> Work:
        return Work(call.body.decode(), replies.of)

    def run(self, data: Any) -> Any:
        assert self._busy.acquire(blocking=False)
        try:
            self.threads.add(threading.get_ident())
            return data
        finally:
            self._busy.release()


def test_start_and_predictions_share_a_thread_and_come_one_at_a_time() -> None:
    scorer = Busy()
    lane = Lane(Settings(), scorer, joins=False)
    lane.call(scorer.start)

    async def ask() -> list[Reply]:
        return await asyncio.gather(*(lane.score(scorer.read, call(str(number))) for number in range(20)))

    assert [reply.body for reply in asyncio.run(ask())] == [b'"%d"' % number for number in range(20)]
    assert len(scorer.threads) == 1
    assert threading.get_ident() not in scorer.threads
