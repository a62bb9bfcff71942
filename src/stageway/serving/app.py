"""HTTP: routes, identities of a request, limits and headers. Every reply leaves through ``App._send``."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any, Awaitable, Callable, Optional

import orjson
from granian.rsgi import ProtocolClosed, ProtocolError

from stageway.serving import replies, swagger
from stageway.serving.control import ControlFile
from stageway.serving.predictor import Predictor
from stageway.serving.replies import BadRequestError, Reply
from stageway.serving.scorer import Call, Scorer, ScoringError, log_traceback
from stageway.serving.settings import Settings

REQUEST_ID = "x-request-id"
MS_REQUEST_ID = "x-ms-request-id"
CLIENT_REQUEST_ID = "x-ms-client-request-id"
TRACE_ID = "traceid"
LONGEST_ID = 100
HEALTHY = Reply(200, b"Healthy", replies.TEXT)
CLOSE = ("connection", "close")


class App:
    """The RSGI application of one worker."""

    def __init__(self, settings: Settings, scorer: Scorer, predictor: Predictor, control: ControlFile) -> None:
        self._settings, self._scorer, self._predictor, self._control = settings, scorer, predictor, control
        self._identity = list(settings.identity)
        self._swagger = Reply(200, orjson.dumps(swagger.document(settings, scorer)))
        self._contract = Reply(200, orjson.dumps(scorer.contract.to_json()))
        self._routes: "dict[str, tuple[tuple[str, ...], Callable[[Any, Any], Awaitable[Reply]]]]" = {
            "/": (("GET", "HEAD"), self._health),
            "/score": (("POST", "GET", "OPTIONS"), self._score),
            "/swagger.json": (("GET", "HEAD"), self._swagger_page),
            "/contract.json": (("GET", "HEAD"), self._contract_page),
        }
        self.on_serving: Callable[[], None] = lambda: None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.on_serving()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(404)
            return
        counted = scope.path != "/"
        if counted:
            self._control.begin()
        try:
            identities, reply = self._identities(scope.headers)
            if reply is None:
                reply = await self._routed(scope, protocol)
            self._send(scope, protocol, reply, identities)
        except (ProtocolClosed, ProtocolError):
            # The client went away, so there is nobody to answer.
            pass
        finally:
            if counted:
                self._control.end()

    async def _routed(self, scope: Any, protocol: Any) -> Reply:
        methods, page = self._routes.get(scope.path, ((), None))
        if page is None:
            known = ", ".join(self._routes)
            return replies.message(404, "there is no {}; this service has {}".format(scope.path, known))
        if scope.method not in methods:
            reply = replies.message(405, "{} does not take {}".format(scope.path, scope.method))
            reply.headers.append(("allow", ", ".join(methods)))
            return reply
        return await page(scope, protocol)

    async def _health(self, scope: Any, protocol: Any) -> Reply:
        return HEALTHY if self._control.ready else replies.message(503, "the service is starting")

    async def _swagger_page(self, scope: Any, protocol: Any) -> Reply:
        if scope.query_string not in ("", "version=2", "version=2.0"):
            return replies.message(404, "the description is there in version 2 only; ask for /swagger.json")
        return self._swagger

    async def _contract_page(self, scope: Any, protocol: Any) -> Reply:
        return self._contract

    async def _score(self, scope: Any, protocol: Any) -> Reply:
        if scope.method == "OPTIONS":
            return Reply(200, b"", replies.TEXT, [("allow", "POST, GET, OPTIONS")])
        body = b"" if scope.method == "GET" else await self._body(scope.headers, protocol)
        if body is None:
            limit = self._settings.max_body
            reply = replies.message(413, "the body is larger than the {} bytes this service takes".format(limit))
            reply.headers.append(CLOSE)
            return reply
        headers = scope.headers
        content_type = headers.get("content-type") or ""
        call = Call(scope.method, body, scope.query_string, content_type, lambda: dict(headers.items()))
        limit_seconds = self._settings.scoring_timeout
        try:
            reply = await self._predictor.submit(self._answer, call, limit_seconds)
        except asyncio.TimeoutError:
            reply = replies.message(500, "scoring took more than its limit of {:g} ms".format(limit_seconds * 1000))
            reply.failed, reply.seconds = True, limit_seconds
        reply.headers.append(("x-ms-run-function-failed", str(reply.failed)))
        reply.headers.append(("x-ms-run-fn-exec-ms", "{:.3f}".format(reply.seconds * 1000)))
        return reply

    def _answer(self, call: Call) -> Reply:
        """Score one call; on the prediction thread, so that a large body does not hold the event loop up either."""
        begun = time.perf_counter()
        try:
            reply = replies.of(self._scorer.score(call))
        except BadRequestError as error:
            return replies.message(error.status, error.message)
        except ScoringError:
            reply = replies.message(500, "the model's code raised an error; the log of the service has the traceback")
            reply.failed = True
        except Exception as error:
            log_traceback(error)
            reply = replies.message(500, "the reply cannot be written as JSON; the log of the service says why")
            reply.failed = True
        reply.seconds = time.perf_counter() - begun
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

    def _identities(self, headers: Any) -> "tuple[list[tuple[str, str]], Optional[Reply]]":
        """Return the headers that name this request, and a refusal when a name is too long."""
        given = headers.get(REQUEST_ID)
        client = headers.get(CLIENT_REQUEST_ID)
        ms = headers.get(MS_REQUEST_ID)
        trace = headers.get(TRACE_ID)
        for name, value in ((REQUEST_ID, given), (MS_REQUEST_ID, ms), (CLIENT_REQUEST_ID, client)):
            if value is not None and len(value) > LONGEST_ID:
                sentence = "the header {} is longer than {} characters".format(name, LONGEST_ID)
                return [], replies.message(431, sentence)
        own = given or str(uuid.uuid4())
        found = [(REQUEST_ID, own), (MS_REQUEST_ID, ms or client or own)]
        if client or ms:
            found.append((CLIENT_REQUEST_ID, client or ms))
        if trace:
            found.append(("TraceId", trace))
        return found, None

    def _send(self, scope: Any, protocol: Any, reply: Reply, identities: "list[tuple[str, str]]") -> None:
        headers = [("content-type", reply.content_type), *self._identity, *identities, *reply.headers]
        if self._control.draining and CLOSE not in headers:
            headers.append(CLOSE)
        if scope.method == "HEAD":
            protocol.response_empty(reply.status, headers)
        else:
            protocol.response_bytes(reply.status, headers, reply.body)
