"""The limit without joining: granian, orjson, and one thread that calls ``predict`` for one request after the other.

Run as ``MODEL=model.joblib granian --interface rsgi granian_thread:app``; it checks nothing and knows one route.
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


class Threaded:
    """One prediction thread, one request at a time."""

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
            body, future = self._queue.get()
            rows = np.array(orjson.loads(body)["data"])
            result = orjson.dumps({"predict": self._model.predict(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)
            self._loop.call_soon_threadsafe(future.set_result, result)


app = Threaded()
