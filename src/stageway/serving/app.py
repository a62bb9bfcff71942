"""HTTP: from granian's scope and protocol to a route and back. Every reply leaves through ``App._send``."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Optional

from granian.rsgi import ProtocolClosed, ProtocolError

from stageway.serving import identity, replies, v2
from stageway.serving.control import ControlFile
from stageway.serving.lane import Lane
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.scorer import Call
from stageway.serving.settings import Settings

CLOSE = ("connection", "close")


class App:
    """The RSGI application of one worker."""

    def __init__(self, settings: Settings, lane: Lane, control: ControlFile, routes: "dict[str, Route]") -> None:
        self._settings, self._lane, self._control, self._routes = settings, lane, control, routes
        self._identity = list(settings.identity)
        self._v2 = settings.prefix + v2.ROOT
        self._leaving = False
        self.on_serving: Callable[[asyncio.AbstractEventLoop], None] = lambda loop: None
        self.guard: "Optional[Callable[[Any], Optional[Reply]]]" = None
        """Returns a refusal for a request whose headers do not hold a valid key or token."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.on_serving(loop)

    def leave(self) -> None:
        """Let every reply from now on be the last of its connection."""
        self._leaving = True

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(404)
            return
        counted = scope.path != "/"
        if counted:
            self._control.begin()
        try:
            identities, reply = identity.of(scope.headers)
            if reply is None:
                reply = await self._routed(scope, protocol)
            if reply.status >= 400 and scope.path.startswith(self._v2):
                reply = v2.refused(reply)
            self._send(scope, protocol, reply, identities)
        except (ProtocolClosed, ProtocolError):
            # The client went away, so there is nobody to answer.
            pass
        finally:
            if counted:
                self._control.end()

    async def _routed(self, scope: Any, protocol: Any) -> Reply:
        route = self._routes.get(scope.path)
        if route is None:
            known = ", ".join(path for path in self._routes if not path.startswith(self._v2 + "/"))
            return replies.message(404, "there is no {}; this service has {}".format(scope.path, known))
        if scope.method not in route.methods:
            reply = replies.message(405, "{} does not take {}".format(scope.path, scope.method))
            reply.headers.append(("allow", ", ".join(route.methods)))
            return reply
        if route.guarded and self.guard is not None:
            refusal = self.guard(scope.headers)
            if refusal is not None:
                return refusal
        return route.page(scope) if route.page is not None else await self._scored(route, scope, protocol)

    async def _scored(self, route: Route, scope: Any, protocol: Any) -> Reply:
        if scope.method == "OPTIONS":
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
        if (self._leaving or self._control.draining) and CLOSE not in headers:
            headers.append(CLOSE)
        if scope.method == "HEAD":
            protocol.response_empty(reply.status, headers)
        else:
            protocol.response_bytes(reply.status, headers, reply.body)
