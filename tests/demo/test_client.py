"""The demo's client must notice every failed request: it is what the line with `0 failed` rests on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stageway.demo.client import VERSION_HEADER, Client, close, score

Answer = Callable[[int], tuple[int, bytes, dict[str, str]]]
EXPECTED = {"diabetes:1": [182.0], "diabetes:2": [202.5]}


def fine(version: str = "diabetes:1", value: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    body = json.dumps(EXPECTED[version] if value is None else value).encode()
    return 200, body, {VERSION_HEADER: version, **headers}


class Place:
    """A real HTTP server that answers the n-th request as it is told."""

    def __init__(self, answer: Answer) -> None:
        self.requests = self.connections = 0
        place = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                place.connections += 1
                super().setup()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                place.requests += 1
                status, body, headers = answer(place.requests)
                if status == 0:
                    self.connection.close()
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except (OSError, ValueError):  # the connection that was cut on purpose
                    pass

            def finish(self) -> None:
                try:
                    super().finish()
                except (OSError, ValueError):
                    pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Place]]:
    places: list[Place] = []

    def start(answer: Answer) -> Place:
        places.append(Place(answer))
        return places[-1]

    yield start
    for place in places:
        place.stop()


def scored(place: Place, until: int) -> Client:
    """Return a client that has done *until* requests."""
    client = Client(place.endpoint, b'{"data": [[1]]}', EXPECTED.__getitem__)
    client.start()
    assert client.until(lambda: client.requests >= until)
    client.stop()
    return client


def test_good_replies_are_counted_by_version_over_one_connection(serve: Callable[[Answer], Place]) -> None:
    place = serve(lambda at: fine("diabetes:1" if at <= 3 else "diabetes:2"))
    client = scored(place, 6)
    assert client.failures == []
    assert client.replies["diabetes:1"] == 3
    assert client.replies["diabetes:2"] >= 3
    assert client.requests == place.requests
    assert place.connections == 1


def test_a_reply_that_closes_the_connection_is_no_failure(serve: Callable[[Answer], Place]) -> None:
    place = serve(lambda at: fine(Connection="close") if at == 2 else fine())
    client = scored(place, 4)
    assert client.failures == []
    assert place.connections == 2


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ((500, b"{}", {VERSION_HEADER: "diabetes:1"}), "status 500"),
        ((502, b"", {}), "status 502"),
        (fine(value=[182.1]), r"diabetes:1 answered \[182.1\] where it predicts \[182.0\]"),
        (fine("diabetes:2", value=[182.0]), "diabetes:2 answered"),
        ((200, b"[182.0]", {}), "a reply of no version"),
        ((200, b"[182.0]", {VERSION_HEADER: "diabetes:9"}), "a reply of diabetes:9"),
        ((200, b"not json", {VERSION_HEADER: "diabetes:1"}), "JSONDecodeError"),
        ((0, b"", {}), "RemoteDisconnected"),
    ],
)
def test_every_kind_of_failure_is_seen(
    answer: tuple[int, bytes, dict[str, str]], failure: str, serve: Callable[[Answer], Place]
) -> None:
    client = scored(serve(lambda at: answer if at == 2 else fine()), 4)
    assert len(client.failures) == 1
    with pytest.raises(AssertionError, match=failure):
        raise AssertionError(client.failures[0])


def test_nobody_listening_is_a_failure_and_not_a_crash(serve: Callable[[Answer], Place]) -> None:
    place = serve(lambda at: fine())
    place.stop()
    gone = Client(place.endpoint, b"{}", EXPECTED.__getitem__)
    gone.start()
    assert gone.until(lambda: len(gone.failures) > 1)
    gone.stop()
    assert not gone.replies
    assert "Refused" in gone.failures[0]
    place.stop = lambda: None  # type: ignore[method-assign]


def test_one_score_says_who_answered(serve: Callable[[Answer], Place]) -> None:
    reply = score(serve(lambda at: fine("diabetes:2")).endpoint, b"{}")
    assert (reply.value, reply.version) == ([202.5], "diabetes:2")


@pytest.mark.parametrize(
    ("value", "wanted", "same"),
    [
        ([1.0], [1.0000000000001], True),
        ([1.0], [1.0001], False),
        ([1.0], [1.0, 2.0], False),
        ([[1.0, 2.0]], [[1.0, 2.0]], True),
        ([1.0], [[1.0]], False),
        ("a", "a", True),
        (None, 0, False),
    ],
)
def test_replies_are_the_same_up_to_their_last_digits(value: Any, wanted: Any, same: bool) -> None:
    assert close(value, wanted) is same
