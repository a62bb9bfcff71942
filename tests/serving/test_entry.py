"""What an entry script is given, what becomes of what it returns, and what a client sees of its errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

SCRIPT = '''
import json, sys

import numpy as np

def init():
    global factor
    factor = 2

def run(data, request_headers):
    asked = json.loads(data)
    what = asked.get("return")
    if what == "error":
        raise ValueError("the password is hunter2")
    if what == "exit":
        sys.exit(0)
    return {
        "double": lambda: factor * asked["x"],
        "text": lambda: "ü",
        "none": lambda: None,
        "array": lambda: np.arange(4.0).reshape(2, 2)[:, ::-1],
        "numbers": lambda: {"a": np.float32(0.5), 3: np.int64(7), "b": np.bool_(True), "c": {1}},
        "table": lambda: table(),
        "nan": lambda: [float("nan")],
        "header": lambda: [request_headers["X-Shop"], request_headers.get("x-SHOP"), "nope" in request_headers],
        "object": lambda: object(),
        "response": lambda: Answer(),
        "query": lambda: asked,
    }[what]()

def table():
    import pandas as pd
    return pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})

class Answer:
    """Quacks like the response objects of v1."""
    status_code = 418
    headers = {"Content-Type": "text/tea", "Content-Length": "99", "X-Pot": "short"}
    def get_data(self):
        return b"stout"
'''


@pytest.fixture(scope="module")
def service(start: Any) -> Any:
    identity = ("--release", "sha256:12ab", "--model-version", "diabetes:3")
    return start(SCRIPT, *identity, "--max-body", "100000").ready()


@pytest.mark.parametrize(
    ("asked", "returned"),
    [
        ({"return": "double", "x": 4}, 8),
        ({"return": "text"}, "ü"),
        ({"return": "none"}, {}),
        ({"return": "array"}, [[1.0, 0.0], [3.0, 2.0]]),
        ({"return": "numbers"}, {"a": 0.5, "3": 7, "b": True, "c": [1]}),
        ({"return": "table"}, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ({"return": "nan"}, [None]),
        ({"return": "header"}, ["tea", "tea", False]),
    ],
)
def test_what_run_returns_becomes_json(service: Any, asked: Any, returned: Any) -> None:
    reply = service.score(asked, {"x-shop": "tea"})
    assert (reply.status, reply.json) == (200, returned)
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert reply.headers["x-ms-run-function-failed"] == "False"
    assert float(reply.headers["x-ms-run-fn-exec-ms"]) >= 0


def test_a_response_object_passes_through(service: Any) -> None:
    reply = service.score({"return": "response"})
    assert (reply.status, reply.body) == (418, b"stout")
    assert (reply.headers["content-type"], reply.headers["x-pot"]) == ("text/tea", "short")
    assert reply.headers["content-length"] == "5"


def test_a_get_gives_its_query_as_json_text(service: Any) -> None:
    reply = service.ask("GET", "/score?return=query&n=1&list=[1,2]&twice=a&twice=2&empty=")
    assert reply.json == {"return": "query", "n": 1, "list": [1, 2], "twice": ["a", 2], "empty": ""}


@pytest.mark.parametrize("what", ["error", "exit"])
def test_an_error_in_run_is_a_500_that_keeps_its_text_in_the_log(service: Any, what: str) -> None:
    reply = service.score({"return": what})
    assert reply.status == 500
    assert list(reply.json) == ["message"]
    assert b"hunter2" not in reply.body
    assert reply.headers["x-ms-run-function-failed"] == "True"
    assert {"error": "ValueError: the password is hunter2", "exit": "SystemExit: 0"}[what] in service.lines
    assert service.score({"return": "double", "x": 1}).json == 2


def test_what_is_not_json_is_said_in_the_log(service: Any) -> None:
    reply = service.score({"return": "object"})
    assert reply.status == 500
    assert reply.headers["x-ms-run-function-failed"] == "True"
    assert any("object" in line and "JSON" in line for line in service.lines)


def test_a_body_that_is_not_text_is_refused(service: Any) -> None:
    reply = service.score(b"\xff\xfe")
    assert (reply.status, reply.json) == (400, {"message": "the body is not UTF-8 text"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("POST", "/", 405),
        ("OPTIONS", "/score", 200),
        ("PUT", "/score", 405),
        ("DELETE", "/score", 405),
        ("GET", "/score/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/swagger.json", 200),
        ("GET", "/swagger.json?version=2", 200),
        ("GET", "/swagger.json?version=3", 200),
        ("GET", "/swagger.json?version=4", 404),
        ("POST", "/swagger.json", 405),
        ("GET", "/contract.json", 200),
    ],
)
def test_every_route_answers_with_the_names_of_what_answers(service: Any, method: str, path: str, status: int) -> None:
    reply = service.ask(method, path)
    assert reply.status == status
    assert reply.headers["x-stageway-release"] == "sha256:12ab"
    assert reply.headers["x-stageway-model-version"] == "diabetes:3"
    assert reply.headers["x-ms-request-id"] == reply.headers["x-request-id"]
    if status >= 400:
        assert list(reply.json) == ["message"]


def test_the_health_page_says_healthy(service: Any) -> None:
    assert service.ask("GET", "/").body == b"Healthy"


def test_one_connection_carries_many_requests(service: Any) -> None:
    with service.client() as client:
        replies = [client.ask("POST", "/score", json.dumps({"return": "double", "x": x})) for x in range(50)]
    assert [reply.json for reply in replies] == [2 * x for x in range(50)]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"x-request-id": "r"}, {"x-request-id": "r", "x-ms-request-id": "r", "x-ms-client-request-id": None}),
        (
            {"x-ms-client-request-id": "c", "x-request-id": "r"},
            {"x-request-id": "r", "x-ms-request-id": "c", "x-ms-client-request-id": "c"},
        ),
        ({"x-ms-request-id": "m"}, {"x-ms-request-id": "m", "x-ms-client-request-id": "m"}),
        ({"TraceId": "t"}, {"traceid": "t"}),
    ],
)
def test_a_request_keeps_its_names(service: Any, sent: dict[str, str], expected: dict[str, str | None]) -> None:
    headers = service.ask("GET", "/", headers=sent).headers
    assert {name: headers.get(name) for name in expected} == expected


@pytest.mark.parametrize("name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id"])
def test_a_name_over_100_characters_is_refused(service: Any, name: str) -> None:
    assert service.ask("GET", "/", headers={name: "i" * 100}).status == 200
    reply = service.ask("GET", "/", headers={name: "i" * 101})
    assert (reply.status, reply.json) == (431, {"message": f"the header {name} is longer than 100 characters"})


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_and_the_connection_closed(service: Any, chunked: bool) -> None:
    fits, too_large = b'{"return": "none"}'.ljust(100_000), b"x" * 100_001

    def sent(body: bytes) -> Any:
        return iter([body[:70_000], body[70_000:]]) if chunked else body

    assert service.ask("POST", "/score", sent(fits)).status == 200
    reply = service.ask("POST", "/score", sent(too_large))
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert reply.json == {"message": "the body is larger than the 100000 bytes this service takes"}


def test_scoring_over_its_limit_is_given_up_and_the_next_request_is_answered(start: Any) -> None:
    script = "import threading\ndef run(data):\n    return threading.Event().wait() if 'hang' in data else 1\n"
    service = start(script, environment={"SCORING_TIMEOUT_MS": "300"}).ready()
    reply = service.score({"hang": True})
    assert (reply.status, reply.json) == (500, {"message": "scoring took more than its limit of 300 ms"})
    assert reply.headers["x-ms-run-function-failed"] == "True"
    assert service.score({}).json == 1


def test_files_beside_the_script_can_be_imported_and_the_machines_packages_cannot(start: Any, tmp_path: Any) -> None:
    (tmp_path / "helper.py").write_text("ANSWER = 42\n")
    script = "import helper, sys\ndef run(data):\n    return helper.ANSWER, [p for p in sys.path if 'site-pack' in p]\n"
    outcome = start(script, folder=tmp_path).ready().score({}).json
    assert outcome[0] == 42
    assert len(outcome[1]) == 1


def test_scripts_find_an_event_loop_and_have_to_await_themselves(start: Any) -> None:
    script = """
import asyncio, json
async def later(number):
    await asyncio.sleep(0)
    return number + 1
def init():
    global first
    first = asyncio.get_event_loop().run_until_complete(later(0))
def run(data):
    asked = json.loads(data)
    if asked == "awaits":
        return asyncio.get_event_loop().run_until_complete(later(first))
    return later(first)
"""
    service = start(script).ready()
    assert service.score("awaits").json == 2
    assert service.score("forgets").status == 500
    assert service.lines[-1] == (
        "stageway-serving: run() of score.py returned a coroutine, which nobody awaits; "
        "let it return asyncio.run(...) of that"
    )


def test_what_is_probably_a_mistake_is_said_once(start: Any) -> None:
    service = start("import json\ndef run(data):\n    return [json.loads(data), None]\n").ready()
    assert service.score(1).json == [1, None]
    assert [service.score(float("nan")).json for _ in range(2)] == [[None, None]] * 2
    assert sum("score.py has no init(); nothing is loaded at the start" in line for line in service.lines) == 1
    assert sum("NaN or infinity" in line for line in service.lines) == 1


def test_rows_of_different_lengths_are_called_that(start: Any) -> None:
    script = """
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema
@input_schema("data", NumpyParameterType(np.zeros((1, 2))))
def run(data):
    return data
"""
    reply = start(script).ready().score({"data": [[1, 2], [3]]})
    sentence = "the data does not fit the declared schema: rows have different lengths"
    assert (reply.status, reply.json) == (400, {"message": sentence})
