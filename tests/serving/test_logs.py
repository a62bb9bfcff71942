"""The log as JSON: every line is an object, says whose request it belongs to, and holds no secret."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from stageway.serving import logs
from stageway.serving.scorer import Alone, log_traceback, said

SCRIPT = """
import logging, sys, threading, warnings
log = logging.getLogger("mine")

def init():
    print("init prints")
    log.info("init logs")
    log.debug("below the level")

def run(data):
    print("half a ", end="")
    print("line\\nand another")
    print("to stderr", file=sys.stderr)
    log.warning("with %s", "arguments")
    if data == "raise":
        raise ValueError("no such row")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("caught")
    print("\\ud800 \\x00 \\u2028")
    return 1
"""


@pytest.fixture(scope="module")
def service(start: Any) -> Any:
    return start(SCRIPT, "--log-format", "json", "--access-log").ready()


def written(service: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.lines]


def of(service: Any, name: str) -> list[dict[str, Any]]:
    return [one for one in written(service) if one.get("request_id") == name]


def test_every_line_is_an_object_and_names_its_request(service: Any, until: Any) -> None:
    assert service.score(b"x", {"x-request-id": "first"}).status == 200
    until(lambda: any(one["logger"] == "stageway.serving.access" for one in of(service, "first")))
    lines = of(service, "first")
    for one in lines:
        assert one["time"].endswith("Z")
    said = [(one["level"], one["logger"], one["message"]) for one in lines]
    assert said[:5] == [
        ("INFO", "stdout", "half a line"),
        ("INFO", "stdout", "and another"),
        ("WARNING", "stderr", "to stderr"),
        ("WARNING", "mine", "with arguments"),
        ("ERROR", "mine", "caught"),
    ]
    assert lines[4]["traceback"].endswith("ZeroDivisionError: division by zero")
    started = [(one["logger"], one["message"]) for one in written(service) if "request_id" not in one]
    assert started[:2] == [("stdout", "init prints"), ("mine", "init logs")]
    assert ("stageway.serving", "ready on unix:" + str(service.uds) + ", 1 worker") in started


def test_an_error_of_the_script_is_one_object_with_its_traceback(service: Any, until: Any) -> None:
    assert service.score(b"raise", {"x-request-id": "second"}).status == 500
    until(lambda: any("traceback" in one for one in of(service, "second")))
    (error,) = [one for one in of(service, "second") if "traceback" in one]
    assert (error["level"], error["message"]) == ("ERROR", "ValueError: no such row")
    assert "score.py" in error["traceback"]
    assert "stageway/serving" not in error["traceback"]


def test_the_access_log_has_no_query_and_no_header(service: Any, until: Any) -> None:
    headers = {"x-request-id": "third", "authorization": "Bearer hidden"}
    assert service.ask("GET", "/score?key=hidden", headers=headers).status == 200
    assert service.ask("GET", "/no%0awhere", headers={"x-request-id": "fourth"}).status == 404
    service.ask("GET", "/", headers={"x-request-id": "health"})
    until(lambda: of(service, "fourth"))
    (line,) = [one for one in of(service, "third") if one["logger"].endswith(".access")]
    assert {name: line[name] for name in ("method", "path", "status")} == {
        "method": "GET",
        "path": "/score",
        "status": 200,
    }
    assert line["ms"] > 0
    assert "hidden" not in service.log.read_text()
    assert of(service, "health") == []


def test_the_access_log_as_text_is_a_line_that_a_path_cannot_break(start: Any, until: Any) -> None:
    service = start("def init():\n    pass\ndef run(data):\n    return 1\n", "--access-log").ready()
    service.score({}, {"x-request-id": "an-id"})
    service.ask("GET", "/no%0Astageway-serving:where")
    until(lambda: len(service.lines) == 3)
    first, second = service.lines[1:]
    assert first.startswith("stageway-serving: POST /score 200 ")
    assert first.endswith(" ms an-id")
    assert second.startswith("stageway-serving: GET /no")


def test_the_level_is_the_environment_s(start: Any, until: Any) -> None:
    quiet = start(SCRIPT, "--log-format", "json", environment={"AZUREML_LOG_LEVEL": "error"}).ready()
    quiet.score(b"x")
    until(lambda: any(one["message"] == "caught" for one in written(quiet)))
    assert not [one for one in written(quiet) if one["logger"] == "mine" and one["level"] != "ERROR"]
    loud = start(SCRIPT, environment={"AZUREML_LOG_LEVEL": "DEBUG"}).ready()
    until(lambda: "DEBUG mine: below the level" in loud.lines)


def test_the_reason_for_not_starting_is_found_in_either_format(start: Any) -> None:
    for arguments in ([], ["--log-format", "json"]):
        service = start("import nowhere\n", *arguments)
        assert service.ended() == 1
        found = logs.why_not_started(service.lines[-1])
        assert found == "score.py does not import: ModuleNotFoundError: No module named 'nowhere'"
    for line in ("", "{", "[]", '{"logger": "mine", "message": "cannot start: x"}', "cannot start: x"):
        assert logs.why_not_started(line) == ""


CLOSING = """
import logging, sys

def run(data):
    sys.stderr.close()
    sys.__stderr__.close()
    logging.warning("nobody reads this")
    if "raise" in data:
        raise ValueError("nor this")
    return 1
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_service_goes_on_without_its_log(start: Any, log_format: str) -> None:
    service = start(CLOSING, "--log-format", log_format, "--access-log").ready()
    assert [service.score(body).status for body in (b"raise", b"x", b"raise", b"x")] == [500, 200, 500, 200]


def test_an_error_of_ours_is_logged_with_its_whole_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError) as raised:
        Alone().give(None, ())
    assert raised.value.__traceback__ is not None
    log_traceback(raised.value.with_traceback(raised.value.__traceback__.tb_next))
    assert "in give\n" in capsys.readouterr().err


def test_an_error_whose_text_raises_is_logged_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise ValueError("no")

    log_traceback(Unspeakable())
    assert "Unspeakable" in capsys.readouterr().err
    assert said(Unspeakable()) == "Unspeakable: its text cannot be had"


def test_a_reload_is_said_as_json_too(service: Any, until: Any) -> None:
    service.process.send_signal(signal.SIGHUP)
    until(lambda: any(one["message"] == "reloaded, 1 worker" for one in written(service)))
