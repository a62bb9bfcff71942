"""The limit with joining: as ``granian_thread``, and what came in while ``predict`` ran is predicted in one call.

Run as ``MODEL=model.joblib granian --interface rsgi granian_batch:app``; it checks nothing and knows one route.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import Any

import joblib
import numpy as np
import orjson

HEADERS = [("content-type", "application/json")]


class Batching:
    """One prediction thread that takes all that waits."""

    def __init__(self) -> None:
        self._model = joblib.load(os.environ["MODEL"])
        self._queue: queue.SimpleQueue[tuple[bytes, asyncio.Future[bytes]]] = queue.SimpleQueue()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        threading.Thread(target=self._work, daemon=True).start()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        future = self._loop.create_future()
        self._queue.put((await protocol(), future))
        protocol.response_bytes(200, HEADERS, await future)

    def _work(self) -> None:
        while True:
            jobs = [self._queue.get()]
            while not self._queue.empty():
                jobs.append(self._queue.get())
            parts = [np.array(orjson.loads(body)["data"]) for body, _ in jobs]
            result = self._model.predict(np.concatenate(parts) if len(parts) > 1 else parts[0])
            replies, start = [], 0
            for part in parts:
                piece = {"predict": result[start : start + len(part)]}
                replies.append(orjson.dumps(piece, option=orjson.OPT_SERIALIZE_NUMPY))
                start += len(part)
            self._loop.call_soon_threadsafe(_settle, jobs, replies)


def _settle(jobs: list[tuple[bytes, asyncio.Future[bytes]]], replies: list[bytes]) -> None:
    for (_, future), reply in zip(jobs, replies, strict=True):
        future.set_result(reply)


app = Batching()
