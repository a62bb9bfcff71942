"""Ask a service over HTTP as any client would: one keep-alive connection, no retries, no redirects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests

REQUEST_TIMEOUT = (5.0, 60.0)
"""Seconds to connect, and between two pieces of a reply."""


@dataclass(frozen=True)
class Answer:
    """A reply, or *failure*: why there is none."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    failure: str = ""

    def json(self) -> Any:
        """Raise ``ValueError`` when the body is not JSON."""
        return json.loads(self.body)

    def problem(self) -> str:
        """Say what is wrong with a reply that is not a 200; empty for one that is."""
        if self.failure:
            return self.failure
        if self.status == 200:
            return ""
        text = " ".join(self.body.decode(errors="replace").split())
        try:
            text = str(self.json()["message"])
        except (ValueError, KeyError, TypeError):
            pass
        return f"HTTP {self.status}" + (f": {text[:200]}" if text else "")


class Client:
    """A client of the service at *endpoint*, such as ``http://127.0.0.1:8890``; every request brings *headers*."""

    def __init__(self, endpoint: str, headers: Mapping[str, str] | None = None) -> None:
        self.check: Callable[[Answer], None] = lambda answer: None
        """Is shown every answer before the caller gets it, and may raise."""
        self.endpoint = endpoint.rstrip("/")
        self._session = requests.Session()
        self._session.headers.update(headers or {})
        # A proxy of the environment is not asked for what runs on this machine.
        self._session.trust_env = not _is_loopback(urlsplit(endpoint).hostname or "")

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None)

    def score(self, body: bytes) -> Answer:
        return self._ask("POST", "/score", body)

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        start = time.perf_counter()
        try:
            reply = self._session.request(
                method,
                self.endpoint + path,
                data=body,
                headers=headers,
                timeout=REQUEST_TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            return Answer(
                seconds=time.perf_counter() - start, failure=f"no reply from {self.endpoint}{path}: {_why(error)}"
            )
        answer = Answer(reply.status_code, reply.headers, reply.content, time.perf_counter() - start)
        self.check(answer)
        return answer

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "it took too long"
    if isinstance(error, requests.ConnectionError):
        return "the connection failed"
    return type(error).__name__
