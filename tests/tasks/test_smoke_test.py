"""``smoke-test`` asks over HTTP like any client, and says where a reply is not what was promised."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from stageway import output
from stageway.contract import Contract, infer
from stageway.dossier import Dossier
from stageway.errors import ConfigError, RefusedError, StagewayError, TargetError
from stageway.tasks.asking import Answer, Client
from stageway.tasks.deploy import deploy
from stageway.tasks.smoke_test import smoke_test

REPLY = [203.4, 68.9]

Tested = Callable[..., Dossier]


@pytest.fixture
def tested(project: Any) -> Tested:
    """Deploy a version whose service behaves as said, and smoke-test it in ``dev``."""

    def testing(**behaviour: Any) -> Dossier:
        dossier = deploy(project.version(1, **behaviour), project.workspace, stage="dev")
        return smoke_test(dossier, project.workspace, stage="dev")

    return testing


def smoke(dossier: Dossier) -> dict[str, Any]:
    return next(dict(one.facts) for one in dossier.evidence if one.kind == "smoke" and one.stage == "dev")


def verdict(project: Any) -> tuple[str | None, str]:
    with project.store() as opened:
        row = opened.stages.current("dev")
    return row.verdict, row.why


def test_a_good_service_is_proven_with_the_timings_as_evidence(project: Any, tested: Tested) -> None:
    grown = tested()
    assert verdict(project) == ("proven", "")
    facts = smoke(grown)
    assert facts["passed"]
    assert facts["requests"] == 20
    assert 0 < facts["latency_ms_p50"] <= facts["latency_ms_p95"]
    with project.store() as opened:
        kept = opened.evidence.of(grown.need_release().id, stage="dev")["smoke"]
    assert kept.facts == facts


def test_twice_is_as_once(project: Any, tested: Tested) -> None:
    again = smoke_test(tested(), project.workspace, stage="dev")
    assert len([one for one in again.evidence if one.kind == "smoke"]) == 1
    assert verdict(project) == ("proven", "")


def test_requests_are_timed_on_one_connection(project: Any, tested: Tested) -> None:
    tested()
    assert project.world.services["diabetes-dev"].connections == 1


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong number": (
        {"reply": [151.2, 68.9]},
        "two-patients: reply[0] is 151.2, expected 203.4 (tolerance 1e-06)",
    ),
    "another order": ({"reply": [68.9, 203.4]}, "reply[0] is 68.9, expected 203.4"),
    "too few": ({"reply": [203.4]}, "two-patients: reply has 1 item, expected 2"),
    "another form": (
        {"reply": {"score": 1.0}},
        'reply is object {score: number}, and the contract says array of number: {"score": 1.0}',
    ),
    "a status": ({"status": 500, "reply": {"message": "run failed"}}, "two-patients: HTTP 500: run failed"),
    "not JSON": ({"reply": b"<html>"}, "reply is not JSON: b'<html>'"),
    "error text": (
        {"reply": "X has 3 features, but Ridge is expecting 10 features as input"},
        "two-patients: reply is error text in a 200: 'X has 3 features, but Ridge is expecting 10 features as input'",
    ),
    "text where numbers were promised": ({"reply": "sorry"}, "reply is error text in a 200: 'sorry'"),
    "an error object": ({"reply": {"error": "bad"}}, "reply is error text in a 200: error: 'bad'"),
    "an error object as text": ({"reply": '{"error": "bad"}'}, "reply is error text in a 200: error: 'bad'"),
    "a schema that names a missing parameter": (
        {"reply": "run() got an unexpected keyword argument 'inputs'"},
        "the schema names the parameter 'inputs', which run() does not take",
    ),
    "a schema that names a missing parameter, told by the log": (
        {
            "status": 500,
            "reply": {"message": "run failed"},
            "log": ["TypeError: run() got an unexpected keyword argument 'inputs'"],
        },
        "the schema names the parameter 'inputs', which run() does not take (HTTP 500: run failed)",
    ),
    "another contract": (
        {"says_contract": Contract(infer({"data": [[0.1, 0.2]]}), infer([[1.0]]), "decorators")},
        "contract: reply: array of array(1) of number where array of number was agreed",
    ),
}


@pytest.mark.parametrize(("behaviour", "says"), CASES.values(), ids=CASES.keys())
def test_a_bad_service_is_rejected_with_the_reason(
    project: Any, tested: Tested, behaviour: dict[str, Any], says: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        tested(**behaviour)
    assert caught.value.message.startswith("diabetes:1 failed its smoke test in dev: ")
    assert says in caught.value.message
    told, why = verdict(project)
    assert told == "rejected"
    assert says in why


@pytest.mark.parametrize(
    "reply", [[203.4, 68.9], [203.40000001, 68.9], [203.4, 68.90000002]], ids=["same", "first", "second"]
)
def test_numbers_within_the_tolerance_are_the_same(tested: Tested, reply: Any) -> None:
    assert smoke(tested(reply=reply))["passed"]


@pytest.mark.parametrize(("tolerance", "passes"), [("2%", True), ("0.1%", False)])
def test_the_tolerance_can_be_set(project: Any, tested: Tested, tolerance: str, passes: bool) -> None:
    limits(project, f"tolerance: {tolerance}")
    if passes:
        assert smoke(tested(reply=[205.0, 68.9]))["passed"]
    else:
        with pytest.raises(RefusedError, match=r"\(tolerance 0\.001\)"):
            tested(reply=[205.0, 68.9])


def limits(project: Any, text: str, samples: str = "samples: samples") -> None:
    project.write(
        f"model: diabetes\nserve: {{entry-script: score.py, {samples}}}\n"
        f"stages:\n  dev: {{target: loopback, smoke-test: {{{text}}}}}\n"
    )


@pytest.mark.parametrize(("limit", "passes"), [("1h", True), ("0.001ms", False)])
def test_latency_has_a_limit(project: Any, tested: Tested, limit: str, passes: bool) -> None:
    limits(project, f"p95: {limit}")
    if passes:
        assert smoke(tested())["passed"]
    else:
        with pytest.raises(RefusedError, match=r"latency: p95 of 20 requests is .* ms, above the limit of 0.001 ms"):
            tested()


class Sometimes:
    """Fails every *nth* request."""

    def __init__(self, nth: int) -> None:
        self.nth, self.count = nth, 0

    def __call__(self, body: Any) -> tuple[int, Any]:
        self.count += 1
        failed = self.count % self.nth == 0
        return (503, {"message": "busy"}) if failed else (200, REPLY)


@pytest.mark.parametrize(("allowed", "passes"), [(1, False), (2, True)])
def test_errors_have_a_limit(project: Any, tested: Tested, allowed: int, passes: bool) -> None:
    limits(project, f"errors: {allowed}, requests: 20")
    if passes:
        facts = smoke(tested(score=Sometimes(10)))
        assert facts["errors"] == 2
    else:
        with pytest.raises(RefusedError, match="errors: 2 of 20 requests failed, allowed 1; the first: HTTP 503: busy"):
            tested(score=Sometimes(10))


def test_every_sample_is_asked_and_every_problem_said(project: Any, tested: Tested) -> None:
    project.sample("one-patient", {"data": [[0.1, 0.2]]}, [203.4])
    with pytest.raises(RefusedError) as caught:
        tested(reply=[1.0])
    assert "one-patient: reply[0] is 1.0, expected 203.4" in caught.value.message
    assert "two-patients: reply has 1 item, expected 2" in caught.value.message


def test_samples_registered_with_the_version_go_before_the_projects(project: Any, tmp_path: Any) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.json").write_text('{"data": [[9, 9]]}')
    (own / "mine.expected.json").write_text("[1.0]")
    project.world.samples["diabetes:1"] = own
    dossier = project.version(1, reply=[1.0])
    dossier = dossier.having(model=dossier.need_model().model_copy(update={"has_samples": True}))
    grown = smoke_test(deploy(dossier, project.workspace, stage="dev"), project.workspace, stage="dev")
    assert "mine" in [one["name"] for one in smoke(grown)["checks"]]


def test_an_expected_error_is_a_reply_like_any_other(project: Any, tested: Tested) -> None:
    text = Contract(None, infer("text"), "samples")
    project.sample("two-patients", {"data": []}, "Expected 2D array, got 1D array instead")
    assert smoke(tested(reply="Expected 2D array, got 1D array instead", contract=text))["passed"]


@pytest.mark.parametrize(
    ("reply", "passes"), [("benign", True), ("ValueError: no", False), ("'data'", False), ("error: no", False)]
)
def test_without_an_expected_reply_text_that_reads_as_an_error_fails(
    project: Any, tested: Tested, reply: str, passes: bool
) -> None:
    (project.root / "samples" / "two-patients.expected.json").unlink()
    text = Contract(None, infer("text"), "samples")
    if passes:
        assert smoke(tested(reply=reply, contract=text))["passed"]
    else:
        with pytest.raises(RefusedError, match="reply is error text in a 200"):
            tested(reply=reply, contract=text)


def test_without_samples_it_says_that_replies_were_not_compared(project: Any, tested: Tested) -> None:
    limits(project, "errors: 0", samples="")
    notes: list[str] = []
    with output.notes_to(notes.append):
        facts = smoke(tested(reply=[0.0]))
    assert "dev: no samples, replies were not compared" in notes
    assert (facts["passed"], facts["requests"], facts["latency_ms_p95"]) == (True, 0, None)


def test_a_latency_limit_without_anything_to_time_is_refused(project: Any, tested: Tested) -> None:
    limits(project, "p95: 1s", samples="")
    with pytest.raises(ConfigError, match=r"stages\.dev\.smoke-test\.p95: there are no samples to time"):
        tested()
    assert verdict(project)[0] is None


def swagger(parameter: str) -> dict[str, Any]:
    return {
        "swagger": "2.0",
        "paths": {
            "/score": {"post": {"parameters": [{"in": "body", "schema": {"$ref": "#/definitions/ServiceInput"}}]}}
        },
        "definitions": {
            "ServiceInput": {
                "type": "object",
                "properties": {parameter: {"type": "array"}},
                "example": {parameter: [[0.1, 0.2]]},
            }
        },
    }


def run_of_data(body: dict[str, Any]) -> tuple[int, Any]:
    """Score as a script does whose ``run`` takes ``data``, and whose driver passes the body by name."""
    if set(body) != {"data"}:
        return 500, {"message": "run failed"}
    return 200, REPLY


@pytest.mark.parametrize(("parameter", "passes"), [("data", True), ("inputs", False)])
def test_without_samples_the_schemas_own_example_is_asked(
    project: Any, tested: Tested, parameter: str, passes: bool
) -> None:
    limits(project, "p95: 1h", samples="")
    behaviour = {
        "swagger": swagger(parameter),
        "score": run_of_data,
        "log": ["TypeError: run() got an unexpected keyword argument 'inputs'"],
    }
    if passes:
        assert smoke(tested(**behaviour))["requests"] == 20
    else:
        with pytest.raises(RefusedError, match="the schema names the parameter 'inputs', which run\\(\\) does not"):
            tested(**behaviour)


def test_a_description_that_describes_nothing_fails(tested: Tested) -> None:
    with pytest.raises(RefusedError, match=r"swagger: the reply to /swagger\.json does not describe POST /score"):
        tested(swagger={"swagger": "2.0"})


def test_another_release_at_the_endpoint_says_nothing_about_this_one(project: Any, tested: Tested) -> None:
    with pytest.raises(TargetError, match=r"release r-other answers at http://.*, and r-\w+ should"):
        tested(calls_itself="r-other")
    assert verdict(project)[0] is None


def test_a_stage_that_went_on_meanwhile_says_nothing_about_the_older_release(project: Any) -> None:
    first = deploy(project.version(1), project.workspace, stage="dev")
    deploy(project.version(2), project.workspace, stage="dev")
    with pytest.raises(TargetError, match="run `stageway deploy diabetes:1 --stage dev`"):
        smoke_test(first, project.workspace, stage="dev")


@pytest.fixture
def silent() -> Any:
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize(("runs", "error", "told"), [(True, RefusedError, "rejected"), (False, TargetError, None)])
def test_a_service_that_never_answers_is_judged_only_if_it_runs(
    project: Any, silent: str, runs: bool, error: type[StagewayError], told: str | None
) -> None:
    project.write(
        "model: diabetes\nserve: {entry-script: score.py}\nstages:\n  dev: {target: loopback, ready-timeout: 300ms}\n"
    )
    dossier = deploy(project.version(1), project.workspace, stage="dev")
    if not runs:
        project.world.services.pop("diabetes-dev").stop()
    lost = dossier.deployment("dev").model_copy(update={"endpoint": silent})
    with pytest.raises(error, match=r"no reply from|does not run there any more"):
        smoke_test(dossier.deployed(lost), project.workspace, stage="dev")
    assert verdict(project)[0] == told


def test_a_service_that_answers_late_is_waited_for(project: Any) -> None:
    dossier = deploy(project.version(1), project.workspace, stage="dev")
    service = project.world.services["diabetes-dev"]
    behaviour, service.behaviour = service.behaviour, None
    import threading

    back = threading.Timer(0.4, lambda: setattr(service, "behaviour", behaviour))
    back.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service.server, "handle_error", lambda *_: None)
        assert smoke(smoke_test(dossier, project.workspace, stage="dev"))["passed"]
    back.join()


def test_what_the_dossier_lacks_is_named_with_the_task_that_leaves_it(project: Any) -> None:
    with pytest.raises(ConfigError, match="no deployment in 'dev': run `stageway deploy --stage dev`"):
        smoke_test(project.version(1), project.workspace, stage="dev")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    tested: Tested, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", silent)
    monkeypatch.setenv("http_proxy", silent)
    assert smoke(tested())["passed"]


def test_the_notes_say_what_was_found(tested: Tested) -> None:
    notes: list[str] = []
    started = time.time()
    with output.notes_to(notes.append):
        tested()
    assert time.time() > started
    assert any("checks passed, p95" in note for note in notes)


@pytest.mark.parametrize("bad", [1, 2], ids=["the tested one is bad", "the other one is bad"])
def test_a_release_is_not_judged_by_the_replies_of_one_that_took_its_place(
    project: Any, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    first, second = (project.version(number, **({"reply": [1.0, 2.0]} if number == bad else {})) for number in (1, 2))
    deployed = deploy(first, project.workspace, stage="dev")
    score = Client.score

    def replaced(client: Client, body: bytes) -> Answer:
        monkeypatch.setattr(Client, "score", score)
        deploy(second, project.workspace, stage="dev")  # in another terminal
        return score(client, body)

    monkeypatch.setattr(Client, "score", replaced)
    with pytest.raises(TargetError, match=f"dev: release {second.need_release().id} answers at "):
        smoke_test(deployed, project.workspace, stage="dev")
    with project.store() as opened:
        assert [(row.label, row.verdict) for row in opened.stages.history("dev")] == [
            ("diabetes:2", None),
            ("diabetes:1", None),
        ]
        assert "smoke" not in opened.evidence.of(first.need_release().id, stage="dev")
