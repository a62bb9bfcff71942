"""The stable port of one service: passes every request on to the Unix socket of a revision.

Bytes go through as they come; HTTP is parsed (llhttp) only to know where requests and replies end. There, between two
requests, a client's connection may change to another revision without anybody noticing: that is how an update keeps
keep-alive connections. A connection whose end of message cannot be known (an upgrade, bad HTTP) is passed on *opaque*.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import cast

import httptools

HOST = "127.0.0.1"
BACKLOG = 1024
HELD = 64 * 1024
"""Bytes of a client that are kept while its way to a revision is being opened."""
LINGER = 5.0
"""Seconds a client may go on sending after its last answer before its connection is closed."""
REASONS = {502: "Bad Gateway", 503: "Service Unavailable"}


class Backend:
    """One revision as the front sees it: a Unix socket that gets a share of the traffic while it is *ready*.

    While it is *sticky*, the only one that gets traffic, connections stay with it from one request to the next.
    """

    __slots__ = ("clients", "credit", "empty", "name", "ready", "socket", "sticky", "weight")

    def __init__(self, name: str, socket: str) -> None:
        self.name = name
        self.socket = socket
        self.weight = 0
        self.credit = 0
        self.ready = False
        self.sticky = False
        self.clients: set[Client] = set()
        self.empty = asyncio.Event()


class Upstream(asyncio.Protocol):
    """The side of a connection that leads to a revision."""

    __slots__ = ("backend", "client", "full", "headless", "parser", "transport")

    def __init__(self, client: Client, backend: Backend) -> None:
        self.client: Client | None = client
        self.backend = backend
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.full = False
        self.headless = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.client is None:
            self.transport.abort()
        else:
            self.client.joined(self)

    def data_received(self, data: bytes) -> None:
        if self.client is not None:
            self.client.answer(self, data)

    def on_headers_complete(self) -> None:
        if self.client is not None and self.client.bodiless and self.parser.get_status_code() >= 200:
            # The reply to HEAD has the length of a body and no body, which the parser cannot know.
            self.headless = True
            self.client.bodiless = False
            self.client.answered(self.parser.should_keep_alive())

    def on_message_complete(self) -> None:
        if self.client is not None and not self.headless and self.parser.get_status_code() >= 200:
            self.client.answered(self.parser.should_keep_alive())

    def eof_received(self) -> None:
        self.lost()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost()

    def lost(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.upstream_lost(self)

    def leave(self) -> None:
        """Nobody needs this connection any more."""
        self.client = None
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        self.full = True
        if self.client is not None:
            self.client.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.client is not None:
            self.client.transport.resume_reading()


class Client(asyncio.Protocol):
    """One client's connection. It is *between* two requests when none is being read and none waits for its reply."""

    __slots__ = (
        "bodiless",
        "chosen",
        "done",
        "front",
        "full",
        "held",
        "keep",
        "opaque",
        "over",
        "parser",
        "reading",
        "replying",
        "transport",
        "upstream",
        "used",
        "waiting",
    )

    def __init__(self, front: Front) -> None:
        self.front = front
        self.transport: asyncio.Transport
        self.parser = httptools.HttpRequestParser(self)
        self.upstream: Upstream | None = None
        self.chosen: Backend | None = None
        self.held: list[bytes] = []
        self.waiting = 0  # requests that were begun and have no complete reply
        self.reading = False  # within a request
        self.replying = False  # within a reply
        self.keep = True  # neither side said "close"
        self.opaque = False
        self.bodiless = False
        self.full = False
        self.done = False  # the client will not send any more
        self.over = False  # it has had its last answer
        self.used = True

    @property
    def between(self) -> bool:
        return not (self.waiting or self.reading or self.opaque)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.front.clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self.over:
            self.hear_out(data)
            return
        self.used = True
        upstream = self.upstream
        if not self.opaque:
            if upstream is not None and not (self.waiting or self.reading or upstream.backend.sticky):
                upstream = self.move()
            try:
                self.parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self.opaque = True
        if upstream is None:
            self.held.append(data)
            self.join()
        elif upstream.transport is not None:
            upstream.transport.write(data)
        else:
            self.held.append(data)
            if sum(map(len, self.held)) > HELD:
                self.transport.pause_reading()

    def on_message_begin(self) -> None:
        self.reading = True
        self.waiting += 1

    def on_message_complete(self) -> None:
        self.reading = False
        if not self.parser.should_keep_alive():
            self.keep = False
        if self.parser.get_method() == b"HEAD":
            if self.waiting > 1:
                self.opaque = True
            self.bodiless = True

    def move(self) -> Upstream | None:
        """Between two requests: let the next one go where its turn is; return the way there if it is open."""
        backend = self.front.choose()
        if backend is not None and self.upstream is not None and self.upstream.backend is backend:
            return self.upstream
        self.part()
        self.chosen = backend
        return None

    def join(self, besides: Iterable[Backend] = ()) -> None:
        """Open the way to a revision for what is held."""
        backend, self.chosen = self.chosen or self.front.choose(besides), None
        if backend is None:
            self.refuse(503, self.front.why_not)
            return
        self.upstream = Upstream(self, backend)
        backend.clients.add(self)
        self.front.spawn(self.connect(self.upstream, tuple(besides)))

    async def connect(self, upstream: Upstream, before: tuple[Backend, ...]) -> None:
        for pause in (0.005, 0.02, 0.1, 0.5, None):
            try:
                await self.front.loop.create_unix_connection(lambda: upstream, upstream.backend.socket)
                return
            except BlockingIOError:  # its queue of connections is full
                if pause is None:
                    break
                await asyncio.sleep(pause)
            except OSError:
                break
        if self.upstream is upstream:
            # Nothing of the request has left us, so another revision may have it.
            self.part()
            self.join((*before, upstream.backend))

    def joined(self, upstream: Upstream) -> None:
        assert upstream.transport is not None
        if self.full:
            upstream.transport.pause_reading()
        upstream.transport.writelines(self.held)
        self.held.clear()
        if self.opaque and self.done:
            upstream.transport.write_eof()
        if not upstream.full:
            self.transport.resume_reading()

    def part(self) -> None:
        """Let go of the revision; the client stays."""
        upstream, self.upstream = self.upstream, None
        if upstream is None:
            return
        upstream.leave()
        self._forget(upstream)

    def _forget(self, upstream: Upstream) -> None:
        backend = upstream.backend
        backend.clients.discard(self)
        if not backend.clients:
            backend.empty.set()
        if upstream.full and not self.transport.is_closing():
            self.transport.resume_reading()

    def answer(self, upstream: Upstream, data: bytes) -> None:
        """Pass on what a revision says."""
        if not self.opaque:
            if not self.waiting:
                self.part()  # it speaks unasked, before it closes an idle connection
                return
            self.replying = True
            try:
                upstream.parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self.opaque = True
            if upstream.headless:
                upstream.headless = False
                upstream.parser = httptools.HttpResponseParser(upstream)
        self.transport.write(data)
        if not (self.waiting or self.reading or self.opaque) and (self.done or self.front.closing):
            self.transport.close()
        elif not upstream.backend.weight and self.keep and self.between:
            self.part()

    def answered(self, keep: bool) -> None:
        self.replying = False
        self.waiting = max(0, self.waiting - 1)
        if not keep:
            self.keep = False

    def upstream_lost(self, upstream: Upstream) -> None:
        """The revision closed its side: the end of a reply, of an idle connection, or of the revision."""
        self.upstream = None
        if upstream.transport is not None:
            upstream.transport.abort()
        self._forget(upstream)
        if self.between and self.keep:
            return
        if self.waiting and not (self.replying or self.opaque):
            self.refuse(502, "the service ended before it answered")
        else:
            self.close()

    def refuse(self, status: int, why: str) -> None:
        """Answer in the revision's place, and close."""
        body = json.dumps({"message": why}).encode()
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Retry-After: 1\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.close()

    def close(self) -> None:
        """Close when the client has got all that was written for it."""
        self.over = True
        self.held.clear()
        if self.reading and not self.opaque:
            # Closing with bytes unread would reset the connection and could take the answer with it.
            self.transport.resume_reading()
            self.front.loop.call_later(LINGER, self.transport.close)
        else:
            self.transport.close()

    def hear_out(self, data: bytes) -> None:
        """Take what the client had under way when it got its last answer; when that has come, close."""
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.parser.feed_data(data)
        if not self.reading:
            self.transport.close()

    def eof_received(self) -> bool:
        self.done = True
        if self.over or self.between or (self.reading and not self.opaque):
            return False
        if self.opaque and self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.front.clients.discard(self)
        self.part()

    def pause_writing(self) -> None:
        self.full = True
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.resume_reading()


class Front:
    """A listener on one port and the revisions behind it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, service: str) -> None:
        self.loop = loop
        self.service = service
        self.backends: list[Backend] = []
        self.clients: set[Client] = set()
        self.closing = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, bound: socket.socket) -> None:
        """Serve on *bound*; an earlier port is given up, its connections stay."""
        server = await self.loop.create_server(lambda: Client(self), sock=bound, backlog=BACKLOG)
        if self._server is not None:
            self._server.close()
        self._server = server
        self.closing = False

    def spawn(self, coroutine: asyncio._CoroutineLike[None]) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def why_not(self) -> str:
        if any(backend.weight for backend in self.backends):
            return f"service {self.service} is starting or has failed; `stageway status` says more"
        return f"service {self.service} has no release"

    def choose(self, besides: Iterable[Backend] = ()) -> Backend | None:
        """Return the revision whose turn it is: the shares are exact over any run of 10,000 choices, and spread."""
        best, total = None, 0
        for backend in self.backends:
            if backend.ready and backend.weight and backend not in besides:
                backend.credit += backend.weight
                total += backend.weight
                if best is None or backend.credit > best.credit:
                    best = backend
        if best is not None:
            best.credit -= total
        return best

    def settle(self) -> None:
        """Take notice of changed backends, weights and readiness. Connections between two requests move at once."""
        live = [backend for backend in self.backends if backend.ready and backend.weight]
        for backend in self.backends:
            backend.credit = 0
            backend.sticky = live == [backend]
            if not backend.weight:
                for client in [one for one in backend.clients if one.between and one.keep]:
                    client.part()

    async def emptied(self, backend: Backend, timeout: float) -> bool:
        """Wait until no client is connected to *backend*; say whether that came true in time."""
        if backend.clients:
            backend.empty.clear()
            try:
                await asyncio.wait_for(backend.empty.wait(), timeout)
            except TimeoutError:
                return False
        return True

    def sweep(self) -> None:
        """Close the idle way to a revision that was not used since the last call.

        Servers close idle connections too, and a request could meet that; so we are the first, between requests.
        """
        for client in list(self.clients):
            if client.between and client.keep and not client.used:
                client.part()
            client.used = False

    async def close(self, timeout: float) -> None:
        """Give up the port; requests that are under way get their replies within *timeout* seconds."""
        self.closing = True
        if self._server is not None:
            self._server.close()
            self._server = None
        end = self.loop.time() + timeout
        while self.clients:
            for client in list(self.clients):
                if client.between or self.loop.time() >= end:
                    client.transport.close()
            await asyncio.sleep(0.02)
            if self.loop.time() >= end + 1:
                for client in list(self.clients):
                    client.transport.abort()
