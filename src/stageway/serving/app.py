"""HTTP: from granian's scope and protocol to a route and back. Every reply leaves through ``App._send``."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, Optional

from granian.rsgi import ProtocolClosed, ProtocolError

from stageway.serving import identity, replies, v2
from stageway.serving.collection import Collector
from stageway.serving.control import ControlFile
from stageway.serving.cors import Cors
from stageway.serving.lane import Lane
from stageway.serving.metrics import Meter
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.scorer import Call
from stageway.serving.settings import Settings

CLOSE = ("connection", "close")
CLIENT_GONE = 499
"""What a request is counted as whose client went away before the reply."""


class App:
    """The RSGI application of one worker."""

    def __init__(self, settings: Settings, lane: Lane, control: ControlFile, routes: "dict[str, Route]") -> None:
        self._settings, self._lane, self._control, self._routes = settings, lane, control, routes
        self._identity = list(settings.identity)
        self._v2 = (v2.ROOT, settings.prefix + v2.ROOT)
        self._uncounted = frozenset(path for path, route in routes.items() if not route.counted)
        self._leaving = False
        self.on_serving: Callable[[asyncio.AbstractEventLoop], None] = lambda loop: None
        self.on_stopping: Callable[[], None] = lambda: None
        self.meter: Optional[Meter] = None
        self.collector: Optional[Collector] = None
        self.cors: Optional[Cors] = None
        self.guard: "Optional[Callable[[Any], Optional[Reply]]]" = None
        """Returns a refusal for a request whose headers do not hold a valid key or token."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
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
        path = scope.path
        counted = path not in self._uncounted
        status = CLIENT_GONE
        if counted:
            begun = time.perf_counter()
            self._control.begin()
        try:
            identities, reply = identity.of(scope.headers)
            if reply is None:
                reply = await self._routed(scope, protocol, identities)
            if reply.status >= 400 and path.startswith(self._v2):
                reply = v2.refused(reply)
            self._send(scope, protocol, reply, identities)
            status = reply.status
        except (ProtocolClosed, ProtocolError):
            # The client went away, so there is nobody to answer.
            pass
        finally:
            if counted:
                self._control.end()
                if self.meter is not None:
                    self.meter.count(path, status, time.perf_counter() - begun)

    async def _routed(self, scope: Any, protocol: Any, identities: "list[tuple[str, str]]") -> Reply:
        route = self._routes.get(scope.path)
        if route is None:
            known = ", ".join(path for path in self._routes if not path.startswith(self._v2))
            return replies.message(404, "there is no {}; this service has {}".format(scope.path, known))
        preflight = None if self.cors is None else self.cors.preflight(scope)
        if preflight is not None:
            return preflight
        if scope.method not in route.methods:
            reply = replies.message(405, "{} does not take {}".format(scope.path, scope.method))
            reply.headers.append(("allow", ", ".join(route.methods)))
            return reply
        if route.guarded and self.guard is not None:
            refusal = self.guard(scope.headers)
            if refusal is not None:
                return refusal
        if route.page is not None:
            return route.page(scope)
        return await self._scored(route, scope, protocol, identities[0][1])

    async def _scored(self, route: Route, scope: Any, protocol: Any, request_id: str) -> Reply:
        if scope.method == "OPTIONS" and not route.raw:
            return Reply(200, b"", replies.TEXT, [("allow", ", ".join(route.methods))])
        body = b"" if scope.method == "GET" else await self._body(scope.headers, protocol)
        if body is None:
            limit = self._settings.max_body
            reply = replies.message(413, "the body is larger than the {} bytes this service takes".format(limit))
            reply.headers.append(CLOSE)
            return reply
        headers = scope.headers
        content_type = headers.get("content-type") or ""
        call = Call(scope.method, scope.path, body, scope.query_string, content_type, lambda: dict(headers.items()))
        assert route.read is not None
        reply = await self._lane.score(route.read, call)
        if self.collector is not None:
            self.collector.offer(call, reply, request_id)
        reply.headers.append(("x-ms-run-function-failed", str(reply.failed)))
        reply.headers.append(("x-ms-run-fn-exec-ms", "{:.3f}".format(reply.seconds * 1000)))
        return reply

    async def _body(self, headers: Any, protocol: Any) -> Optional[bytes]:
        """Return the whole body, or ``None`` when it is too large.

        What is too large is still read, up to as much again, since most clients read the refusal only after that.
        """
        limit = self._settings.max_body
        length = headers.get("content-length")
        if length is not None and length.isdigit() and int(length) <= limit:
            return bytes(await protocol())
        body, size = bytearray(), 0
        async for part in protocol:
            size += len(part)
            if size <= limit:
                body += part
            elif size > 2 * limit:
                break
        return bytes(body) if size <= limit else None

    def _send(self, scope: Any, protocol: Any, reply: Reply, identities: "list[tuple[str, str]]") -> None:
        headers = [("content-type", reply.content_type), *self._identity, *identities, *reply.headers]
        if self.cors is not None:
            headers += self.cors.headers(scope.headers.get("origin"), headers)
        if (self._leaving or self._control.draining) and CLOSE not in headers:
            headers.append(CLOSE)
        if scope.method == "HEAD":
            protocol.response_empty(reply.status, headers)
        else:
            protocol.response_bytes(reply.status, headers, reply.body)
