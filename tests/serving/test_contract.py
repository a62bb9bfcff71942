"""Every case of ``contract_cases``, asked of real servers; one server for each kind of script."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serving import contract_cases as cases
from tests.serving.contract_cases import Case

KINDS: dict[str, tuple[str, dict[str, str], list[Case]]] = {
    "plain": (cases.PLAIN, {}, cases.PLAIN_CASES),
    "declared": (cases.DECLARED, {}, cases.DECLARED_CASES),
    "raw": (cases.RAW, {}, cases.RAW_CASES),
    "placed": (
        cases.PLACED,
        {"SERVICE_PATH_PREFIX": cases.BELOW.lstrip("/"), "AML_CORS_ORIGINS": "http://a.example, http://shop.example"},
        cases.PLACED_CASES,
    ),
}


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest, start: Any) -> Any:
    script, environment, table = KINDS[request.param]
    return start(script, environment=environment).ready(), table


def test_every_request_of_the_table_is_answered_as_it_says(kind: Any) -> None:
    service, table = kind
    wrong = [problem for case in table for problem in _problems(service, case)]
    assert not wrong, "\n".join(wrong)


def _problems(service: Any, case: Case) -> list[str]:
    """Say in what the answer differs from the case."""
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    reply = service.ask(case.method, case.path, body or None, case.headers)
    found = []
    if reply.status != case.status:
        found.append(f"status {reply.status}: {reply.body[:200]!r}")
    elif case.answer is not cases.ANY:
        got = reply.body if isinstance(case.answer, bytes) else reply.json
        if got != case.answer:
            found.append(f"answer {got!r}")
    elif case.status >= 400 and case.method != "HEAD" and list(reply.json) != ["message"]:
        found.append(f"not a message: {reply.body!r}")
    for name, text in case.sent_back.items():
        if reply.headers.get(name) != text:
            found.append(f"header {name}: {reply.headers.get(name)!r}")
    if b"secret" in reply.body or b"Traceback" in reply.body:
        found.append(f"tells too much: {reply.body!r}")
    return [f"{case.name} ({case.method} {case.path}): {one}" for one in found]


def test_the_log_has_what_the_replies_keep_back(kind: Any) -> None:
    service, table = kind
    if any(case.body == b"error" for case in table):
        service.ask("POST", "/score", b"error")
        assert "RuntimeError: secret" in service.lines


def test_any_origin_may_call_where_the_setting_says_so(start: Any) -> None:
    service = start(cases.PLACED, "--cors", "*").ready()
    reply = service.ask("POST", "/score", b"x", {"origin": "http://anywhere.example"})
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "vary" not in reply.headers


def test_headers_that_a_script_repeats_are_all_sent(start: Any) -> None:
    service = start(cases.RAW).ready()
    with service.client() as client:
        client.request("GET", "/score?what=headers")
        answer = client.getresponse()
        answer.read()
    assert answer.headers.get_all("access-control-allow-methods") == ["GET", "POST"]
