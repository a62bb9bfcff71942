"""The task ``smoke-test``: does the stage's endpoint give the replies that were promised, fast enough?

What it saw is left as evidence ``smoke`` of the stage, and makes the release proven or rejected there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from stageway import output, store
from stageway.config.workspace import Workspace
from stageway.contract import Contract, Schema, differences, infer
from stageway.dossier import Deployment, Dossier
from stageway.errors import ConfigError, RefusedError, StagewayError, TargetError
from stageway.evidence import Evidence, SmokeCheck, SmokeResult
from stageway.samples import Sample
from stageway.specs import SmokeTestSpec
from stageway.tasks import replies
from stageway.tasks.access import key_headers
from stageway.tasks.asking import Answer, Client
from stageway.tasks.base import open_registry, open_target, samples_for, serving_already
from stageway.tasks.placing import remember

RELEASE_HEADER = "x-stageway-release"
POLL_SECONDS = 0.1
LOG_LINES = 20


def smoke_test(
    dossier: Dossier, workspace: Workspace, *, stage: Annotated[str, "Stage of stageway.yml whose endpoint to test."]
) -> Dossier:
    """Compare a stage's replies with the expected ones.

    Also fails on error text in a 200, on a reply outside the contract, and beyond the stage's limits of latency and
    errors. A release that passes is proven in the stage; one that does not is rejected there.
    """
    release, deployment = dossier.need_release(), dossier.deployment(stage)
    open_target(workspace, stage)
    spec = workspace.spec.stages[stage].smoke_test
    samples = samples_for(dossier, workspace, open_registry(workspace))
    with Client(deployment.endpoint, key_headers(workspace, stage)) as client:
        checks = [_health(client, deployment, dossier, workspace)]
        if checks[0].passed:
            client.check = lambda answer: _same(answer, deployment, dossier)
            checks.append(_contract(client, dossier.need_contract()))
            swagger, example = _swagger(client)
            checks.append(swagger)
            asked = samples or example
            checks += [_sample(client, one, dossier.need_contract(), spec.tolerance) for one in asked]
            timed = [] if _failed(checks) else _timed(client, asked, spec, stage, workspace)
            checks += _limits(timed, spec)
            if _failed(checks):
                client.get("/")  # what failed without naming a release may have been replaced meanwhile
        else:
            timed = []
    log = _log(workspace, deployment) if _failed(checks) else ""
    result = _result(deployment, _explained(checks, log), timed)
    grown = dossier.with_evidence(
        Evidence(kind="smoke", facts=result.model_dump(mode="json"), release=release.id, stage=stage)
    )
    with store.open(workspace) as opened:
        remember(grown, opened)
        if result.passed:
            opened.stages.proven(stage, release.id)
        else:
            opened.stages.rejected(stage, release.id, "; ".join(result.problems))
    if not result.passed:
        raise RefusedError(
            f"{release.label} failed its smoke test in {stage}: {'; '.join(result.problems)}", detail=log
        )
    _say(result, samples, stage)
    return grown


def _health(client: Client, deployment: Deployment, dossier: Dossier, workspace: Workspace) -> SmokeCheck:
    """Wait until the service answers, and make sure that it is the release in question that does.

    Raises ``TargetError`` when another release answers, or the target says that it does not run: that says nothing
    about the release, so nobody rejects it for that.
    """
    stage, release = deployment.stage, dossier.need_release()
    limit = workspace.spec.stages[stage].ready_timeout
    deadline = time.monotonic() + limit
    answer = client.get("/")
    while answer.problem() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        answer = client.get("/")
    if answer.problem():
        if not serving_already(workspace, stage, release):
            raise TargetError(
                f"{stage}: {release.label} ({release.id}) does not run there any more; {_again(dossier, stage)}"
            )
        return SmokeCheck(name="health", passed=False, problem=f"{answer.problem()} (waited {limit:g} s)")
    _same(answer, deployment, dossier)
    return SmokeCheck(name="health", passed=True, latency_ms=answer.seconds * 1000)


def _same(answer: Answer, deployment: Deployment, dossier: Dossier) -> None:
    """Raise ``TargetError`` when another release than the one in question gave *answer*.

    An error page may name none: what stands before a service gives one when the service itself does not answer.
    """
    stage, wanted, found = deployment.stage, dossier.need_release().id, answer.headers.get(RELEASE_HEADER)
    if found == wanted or (found is None and answer.status != 200):
        return
    answers = f"release {found}" if found else "something that names no release"
    raise TargetError(
        f"{stage}: {answers} answers at {deployment.endpoint}, and {wanted} should; {_again(dossier, stage)}"
    )


def _again(dossier: Dossier, stage: str) -> str:
    return f"run `stageway deploy {dossier.need_release().label} --stage {stage}` (or promote) again"


def _contract(client: Client, agreed: Contract) -> SmokeCheck:
    """Compare what the service says of itself with what the release was packaged with."""
    answer = client.get("/contract.json")
    problem = answer.problem()
    if not problem:
        try:
            said = Contract.from_json(answer.json())
        except (ValueError, AttributeError):
            problem = "the reply to /contract.json is no contract"
        else:
            problem = _otherwise(agreed, said)
    return SmokeCheck(name="contract", passed=not problem, problem=problem)


def _otherwise(agreed: Contract, said: Contract) -> str:
    """Say how the service's contract is another than the agreed one.

    A side that the service does not know may be known here: from the model's signature, or from samples.
    """
    known_here = agreed.source != "decorators"
    for side, mine, theirs in (("request", agreed.request, said.request), ("reply", agreed.response, said.response)):
        if mine != theirs and not (theirs is None and known_here):
            found = [str(one) for one in differences(agreed, said) if one.side == side]
            return "; ".join(found) or f"the service declares another {side} schema than the release was packaged with"
    return ""


def _swagger(client: Client) -> tuple[SmokeCheck, tuple[Sample, ...]]:
    """Read the service's description; its own example is a request to ask where there are no samples."""
    answer = client.get("/swagger.json")
    problem = answer.problem()
    example: tuple[Sample, ...] = ()
    if answer.status == 404:
        # An image of another maker may describe nothing; /score is what counts.
        return SmokeCheck(name="swagger", passed=True), ()
    if not problem:
        try:
            described = _input(answer.json())
        except (ValueError, KeyError, TypeError, IndexError):
            problem = "the reply to /swagger.json does not describe POST /score"
        else:
            if described.get("example"):
                body = json.dumps(described["example"]).encode()
                example = (Sample(name="the schema's example", request=body),)
    return SmokeCheck(name="swagger", passed=not problem, problem=problem), example


def _input(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the body of ``POST /score``."""
    parameters = document["paths"]["/score"]["post"].get("parameters", [])
    schema: Any = next((one["schema"] for one in parameters if one.get("in") == "body"), {})
    if "$ref" in schema:
        schema = document["definitions"][schema["$ref"].rpartition("/")[2]]
    if not isinstance(schema, Mapping):
        raise TypeError("no schema")
    return schema


def _sample(client: Client, sample: Sample, contract: Contract, tolerance: float) -> SmokeCheck:
    answer = client.score(sample.request)
    problem = answer.problem() or _reply_problem(answer, sample, contract, tolerance)
    return SmokeCheck(name=sample.name, passed=not problem, problem=problem, latency_ms=answer.seconds * 1000)


def _reply_problem(answer: Answer, sample: Sample, contract: Contract, tolerance: float) -> str:
    """Say what is wrong with a reply whose status is 200."""
    try:
        reply = answer.json()
    except ValueError:
        if not sample.has_expected and contract.response is None:
            return _error_text(answer.body.decode(errors="replace"), None)
        return f"reply is not JSON: {answer.body[:80]!r}"
    different = replies.differences(sample.expected, reply, tolerance) if sample.has_expected else []
    if different or not sample.has_expected:
        promised = infer(sample.expected) if sample.has_expected else contract.response
        error = _error_text(reply, promised)
        if error:
            return error
    return "; ".join(replies.invalid(reply, contract.response) or different)


def _error_text(reply: Any, promised: Schema | None) -> str:
    error = replies.error_text(reply) or replies.text_instead(reply, promised)
    return f"reply is error text in a 200: {error}" if error else ""


def _timed(
    client: Client, samples: Sequence[Sample], spec: SmokeTestSpec, stage: str, workspace: Workspace
) -> list[Answer]:
    """Ask *spec.requests* times, one after the other on one connection."""
    if samples:
        return [client.score(samples[at % len(samples)].request) for at in range(spec.requests)]
    if spec.p95 is not None:
        raise ConfigError(
            f"{workspace.file.name}: stages.{stage}.smoke-test.p95: there are no samples to time; "
            "write serve.samples, or register the version with samples"
        )
    return []


def _limits(timed: Sequence[Answer], spec: SmokeTestSpec) -> list[SmokeCheck]:
    if not timed:
        return []
    failed = [one for one in timed if one.problem()]
    problem = ""
    if len(failed) > spec.errors:
        problem = (
            f"{len(failed)} of {len(timed)} requests failed, allowed {spec.errors}; the first: {failed[0].problem()}"
        )
    checks = [SmokeCheck(name="errors", passed=not problem, problem=problem)]
    p95 = _at(timed, 0.95)
    if spec.p95 is not None and p95 is not None:
        limit, slow = spec.p95 * 1000, p95 > spec.p95 * 1000
        problem = f"p95 of {len(timed)} requests is {p95:.4g} ms, above the limit of {limit:g} ms" if slow else ""
        checks.append(SmokeCheck(name="latency", passed=not slow, problem=problem, latency_ms=p95))
    return checks


def _at(timed: Sequence[Answer], share: float) -> float | None:
    """Return the latency in ms that *share* of the answered requests kept (nearest rank)."""
    answered = sorted(one.seconds for one in timed if not one.problem())
    return answered[math.ceil(share * len(answered)) - 1] * 1000 if answered else None


def _failed(checks: Sequence[SmokeCheck]) -> bool:
    return not all(one.passed for one in checks)


def _log(workspace: Workspace, deployment: Deployment) -> str:
    try:
        target = open_target(workspace, deployment.stage)
        return "\n".join(target.logs(deployment.service, lines=LOG_LINES))
    except StagewayError:
        return ""


def _explained(checks: Sequence[SmokeCheck], log: str) -> list[SmokeCheck]:
    """Add the reason where it is a schema that names a parameter which ``run`` lacks."""
    found = []
    for one in checks:
        name = replies.missing_parameter(one.problem) or ("HTTP 500" in one.problem and replies.missing_parameter(log))
        if not one.passed and name:
            why = f"the schema names the parameter {name!r}, which run() does not take"
            found.append(one.model_copy(update={"problem": f"{why} ({one.problem})"}))
        else:
            found.append(one)
    return found


def _result(deployment: Deployment, checks: Sequence[SmokeCheck], timed: Sequence[Answer]) -> SmokeResult:
    return SmokeResult(
        endpoint=deployment.endpoint,
        passed=not _failed(checks),
        checks=tuple(checks),
        latency_ms_p50=_at(timed, 0.50),
        latency_ms_p95=_at(timed, 0.95),
        requests=len(timed),
        errors=sum(1 for one in timed if one.problem()),
    )


def _say(result: SmokeResult, samples: Sequence[Sample], stage: str) -> None:
    timing = f", p95 {result.latency_ms_p95:.4g} ms" if result.latency_ms_p95 is not None else ""
    output.note(f"{stage}: {len(result.checks)} checks passed{timing}")
    if not samples:
        output.note(f"{stage}: no samples, replies were not compared")
    elif without := [one.name for one in samples if not one.has_expected]:
        output.note(f"{stage}: no expected reply beside {', '.join(without)}: only status and contract were checked")
