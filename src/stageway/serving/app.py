"""HTTP: from granian's scope and protocol to a route and back.

A request costs as little Python as it can: the prediction thread that has its reply sends it, without a way back over
the event loop, and what is off (keys, CORS, metrics, collection) is one comparison with ``None``.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any, AsyncIterator, Callable, Optional, cast

from granian.rsgi import ProtocolClosed, ProtocolError

from stageway.serving import identity, replies, v2
from stageway.serving.collection import Collector
from stageway.serving.control import ControlFile
from stageway.serving.cors import Cors
from stageway.serving.lane import Lane
from stageway.serving.logs import AccessLog
from stageway.serving.metrics import Meter
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.scorer import Call
from stageway.serving.settings import Settings

CLOSE = ("connection", "close")
DISCARDED = 1024 * 1024
"""Most bytes of a body that are read although the request is refused."""
CLIENT_GONE = 499
"""What a request is counted as whose client went away before the reply."""
LINGER = 1.0
"""Seconds in which a client may still send the rest of a body that has turned out too large."""
FAILED = {failed: ("x-ms-run-function-failed", str(failed)) for failed in (False, True)}
SECONDS = "x-ms-run-fn-exec-ms"


class App:
    """The RSGI application of one worker."""

    def __init__(self, settings: Settings, lane: Lane, control: ControlFile, routes: "dict[str, Route]") -> None:
        self._settings, self._lane, self._control, self._routes = settings, lane, control, routes
        self._v2 = (v2.ROOT, settings.prefix + v2.ROOT)
        self._uncounted = frozenset(path for path, route in routes.items() if not route.counted)
        self._known = ", ".join(path for path in routes if not path.startswith(self._v2))
        self._leaving = False
        self._first: "dict[str, list[tuple[str, str]]]" = {}
        """The headers that every reply of one content type begins with."""
        self._reading: "dict[Exchange, float]" = {}
        """Requests whose bodies are on their way, and since when."""
        self.on_serving: Callable[[asyncio.AbstractEventLoop], None] = lambda loop: None
        self.on_stopping: Callable[[], None] = lambda: None
        self.meter: Optional[Meter] = None
        self.collector: Optional[Collector] = None
        self.access: Optional[AccessLog] = None
        self.cors: Optional[Cors] = None
        self.guard: "Optional[Callable[[Any], Optional[Reply]]]" = None
        """Returns a refusal for a request whose headers do not hold a valid key or token."""
        lane.watchdog.add(self._check, settings.body_timeout)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # What the start has made stays: looking through it again and again would stop requests for 50 ms and more.
        gc.collect()
        gc.freeze()
        self.on_serving(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.on_stopping()

    def leave(self) -> None:
        """Let every reply from now on be the last of its connection."""
        self._leaving = True

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(404)
            return
        exchange = Exchange(self, scope, protocol)
        if exchange.path in self._uncounted:
            await self._answer(exchange)
            return
        begun = time.perf_counter()
        self._control.begin()
        try:
            await self._answer(exchange)
        finally:
            self._control.end()
            if self.meter is not None:
                self.meter.count(exchange.path, exchange.status, time.perf_counter() - begun)
            if self.access is not None:
                seconds = time.perf_counter() - begun
                self.access.write(exchange.method, exchange.path, exchange.status, seconds, exchange.request_id)

    async def _answer(self, exchange: "Exchange") -> None:
        try:
            exchange.ids, reply = identity.of(exchange.asked)
            route = self._routes.get(exchange.path)
            if reply is None:
                reply = self._refusal(exchange, route)
            if reply is None and route is not None:
                if route.read is None or (exchange.method == "OPTIONS" and not route.raw):
                    reply = _page(exchange, route)
                elif exchange.method == "GET" or await self._body(exchange):
                    job = self._lane.put(route.read, exchange, exchange.scored)
                    scored = await job.done
                    if self.collector is not None:
                        self.collector.offer(exchange, scored, exchange.request_id)
            if reply is not None and await self._discard(exchange):
                exchange.send(reply)
        except (ProtocolClosed, ProtocolError):
            # The client went away, so there is nobody to answer.
            pass
        except Exception:
            exchange.send(replies.message(500, "the reply cannot be sent; the log of the service says why"))
            raise

    def _refusal(self, exchange: "Exchange", route: Optional[Route]) -> Optional[Reply]:
        """Return the reply to what needs neither a page nor the model."""
        if route is None and exchange.path.startswith(self._v2):
            return replies.message(404, v2.missing(exchange.path, v2.identity(self._settings)))
        if route is None:
            return replies.message(404, "there is no {}; this service has {}".format(exchange.path, self._known))
        if self.cors is not None:
            preflight = self.cors.preflight(exchange.scope)
            if preflight is not None:
                return preflight
        if exchange.method not in route.methods:
            reply = replies.message(405, "{} does not take {}".format(exchange.path, exchange.method))
            reply.headers.append(("allow", ", ".join(route.methods)))
            return reply
        return self.guard(exchange.asked) if route.guarded and self.guard is not None else None

    # Bodies and their limits.

    async def _body(self, exchange: "Exchange") -> bool:
        """Read the whole body; ``False`` when it is too large or too slow, which has been answered then."""
        limit, length = self._settings.max_body, exchange.asked.get("content-length")
        if length == "0":
            return True
        if length is None or int(length) > limit:
            return await self._parts(exchange, limit, int(length or 0))
        self._begin(exchange)
        try:
            exchange.part = exchange.protocol()
            exchange.body = await exchange.part
            return exchange.status == CLIENT_GONE
        except asyncio.CancelledError:
            self._stopped(exchange)
            return False
        finally:
            self._reading.pop(exchange, None)

    async def _parts(self, exchange: "Exchange", limit: int, length: int) -> bool:
        """Read a body of unknown *length* (0), or refuse one that is too large.

        What is too large, but no more than twice, is read and forgotten first, since most clients read a refusal only
        when they have sent what they have; one that is found too large on the way has little time for the rest.
        """
        body, size, end = bytearray(), 0, float("inf")
        ending: Optional[asyncio.TimerHandle] = None
        if length <= 2 * limit and not (length and exchange.asked.get("expect")):
            async for part in self._stream(exchange):
                size += len(part)
                if max(size, length) <= limit:
                    body += part
                elif size > 2 * limit or time.monotonic() > end:
                    break
                elif not length and ending is None:
                    self._reading.pop(exchange, None)
                    end = time.monotonic() + LINGER / 2
                    ending = asyncio.get_running_loop().call_later(LINGER, lambda: exchange.part.cancel())
        if ending is not None:
            ending.cancel()
        exchange.body = bytes(body)
        if max(size, length) > limit and exchange.status == CLIENT_GONE:
            exchange.send(_last(413, "the body is larger than the {} bytes this service takes".format(limit)))
        return exchange.status == CLIENT_GONE

    async def _discard(self, exchange: "Exchange") -> bool:
        """Read a body that nobody wants, up to a size: a client that still sends it may never read the reply.

        ``False`` when it took too long, which has been answered then.
        """
        headers, size = exchange.asked, 0
        if (headers.get("content-length") or "0") == "0" and "transfer-encoding" not in headers:
            return True
        async for part in self._stream(exchange):
            size += len(part)
            if size > DISCARDED:
                break
        return exchange.status == CLIENT_GONE

    async def _stream(self, exchange: "Exchange") -> "AsyncIterator[bytes]":
        """Yield the parts of a body as they come; it ends early when it takes too long, which is answered."""
        self._begin(exchange)
        parts = exchange.protocol.__aiter__()
        try:
            while True:
                exchange.part = parts.__anext__()
                part = await exchange.part
                if exchange.status != CLIENT_GONE:
                    return
                yield part
        except StopAsyncIteration:
            pass
        except asyncio.CancelledError:
            self._stopped(exchange)
        finally:
            self._reading.pop(exchange, None)

    def _begin(self, exchange: "Exchange") -> None:
        self._reading[exchange] = time.monotonic()
        if self._lane.watchdog.timer is None:
            self._lane.watchdog.start()

    def _stopped(self, exchange: "Exchange") -> None:
        """Take a cancellation as the end of the body if it was ours."""
        if exchange in self._reading:
            raise asyncio.CancelledError

    def _check(self, now: float) -> Optional[float]:
        """Refuse the bodies that take too long, for the watchdog; their connections end with that."""
        limit = self._settings.body_timeout
        for exchange, begun in self._reading.copy().items():
            if limit and begun + limit <= now:
                del self._reading[exchange]
                if exchange.status == CLIENT_GONE:
                    exchange.send(_last(408, "the body took more than its limit of {:g} ms".format(limit * 1000)))
                exchange.part.cancel()
        return min(self._reading.values(), default=float("inf")) + limit if self._reading else None

    # Replies, on any thread.

    def send(self, exchange: "Exchange", reply: Reply, more: "list[tuple[str, str]]") -> None:
        """Send *reply*, with *more* headers."""
        if reply.status >= 400 and exchange.path.startswith(self._v2):
            reply = v2.refused(reply)
        first = self._first.get(reply.content_type)
        if first is None:
            first = [("content-type", reply.content_type), *self._settings.identity]
            if len(self._first) < 100:
                self._first[reply.content_type] = first
        headers = first + exchange.ids + reply.headers + more
        if self.cors is not None:
            headers += self.cors.headers(exchange.asked.get("origin"), headers)
        if (self._leaving or self._control.draining) and CLOSE not in headers:
            headers.append(CLOSE)
        exchange.status = reply.status
        if exchange.method == "HEAD":
            exchange.protocol.response_empty(reply.status, headers)
        else:
            exchange.protocol.response_bytes(reply.status, headers, reply.body)


class Exchange(Call):
    """One request and its reply; what a model seldom asks for is read from granian when it does."""

    __slots__ = ("app", "asked", "ids", "part", "protocol", "scope", "status")

    def __init__(self, app: App, scope: Any, protocol: Any) -> None:
        self.app, self.scope, self.protocol = app, scope, protocol
        self.path, self.method, self.asked = scope.path, scope.method, scope.headers
        self.body = b""
        self.ids: "list[tuple[str, str]]" = []
        self.status = CLIENT_GONE
        """What was answered; until then, that nobody was."""
        self.part: Any = None
        """What a body is waited for with; cancelled when it takes too long."""

    @property
    def query(self) -> str:  # type: ignore[override]
        return cast(str, self.scope.query_string)

    @property
    def content_type(self) -> str:  # type: ignore[override]
        return self.asked.get("content-type") or ""

    @property
    def request_id(self) -> str:  # type: ignore[override]
        return self.ids[0][1] if self.ids else ""

    def headers(self) -> "dict[str, str]":
        return dict(self.asked.items())

    def send(self, reply: Reply) -> None:
        self.app.send(self, reply, [])

    def scored(self, reply: Reply) -> None:
        """Send a reply of the lane."""
        self.app.send(self, reply, [FAILED[reply.failed], (SECONDS, "%.3f" % (reply.seconds * 1000))])


def _page(exchange: Exchange, route: Route) -> Reply:
    if route.page is not None:
        return route.page(exchange.scope)
    return Reply(200, b"", replies.TEXT, [("allow", ", ".join(route.methods))])


def _last(status: int, sentence: str) -> Reply:
    """Return a reply after which the connection is closed."""
    reply = replies.message(status, sentence)
    reply.headers.append(CLOSE)
    return reply
