"""A plan tells what the run itself will find out from what somebody has to bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stageway.contract import Contract, infer
from stageway.evidence import Evidence
from stageway.pipelines.plan import Condition, judged, plan
from stageway.pipelines.runner import Runner
from stageway.tasks.base import known

if TYPE_CHECKING:
    from tests.conftest import Project

FILE = """
model: diabetes
serve: {samples: samples}
stages:
  dev:
    gates: [latency: {p95: 100ms}]
  prod:
    gates:
      - latency: {p95: 100ms}
      - contract: {}
      - approval: {}
"""
OLD = Contract(infer([1.0]), infer([1.0]), "samples")


@pytest.fixture
def planned(project: Project) -> Project:
    """Version 1 is in prod, with a contract; version 2 has not run."""
    project.register("diabetes:1")
    with project.open() as opened:
        runner = Runner(project.workspace, opened)
        run = runner.work(run_id=runner.start("diabetes:1").number)
        assert run is not None
        assert run.outcome == "promoted"
        release = opened.stages.current("prod")
        assert release is not None
        opened.evidence.put(Evidence(kind="contract", facts=OLD.to_json(), release=release.release))
    (project.root / "samples").mkdir()
    (project.root / "stageway.yml").write_text(FILE)
    project.register("diabetes:2")
    return project


def of(found: tuple[Condition, ...] | list[Condition], gate: str) -> tuple[str, str, str]:
    (one,) = (one for one in found if one.gate == gate)
    return one.state, one.text, one.who


def test_what_a_later_step_of_the_run_makes_is_asked_of_nobody(planned: Project) -> None:
    dev, prod = plan(planned.workspace, "diabetes:2").stages
    assert of(dev.conditions, "latency") == (
        "missing",
        "latency: judged after profile, which measures it in the same run",
        "",
    )
    assert of(prod.conditions, "latency") == (
        "missing",
        "latency: judged after smoke-test dev, which measures it in the same run",
        "",
    )
    assert of(prod.conditions, "contract") == (
        "missing",
        "contract: judged after package, which asks the service for it in the same run",
        "",
    )
    assert of(prod.conditions, "approval")[2], "no step approves"


def test_without_samples_the_gate_says_what_to_bring(planned: Project) -> None:
    (planned.root / "stageway.yml").write_text(FILE.replace("serve: {samples: samples}\n", ""))
    _, prod = plan(planned.workspace, "diabetes:2").stages
    state, text, who = of(prod.conditions, "latency")
    assert (state, who) == ("missing", "who owns the model")
    assert "add samples" in text


@pytest.mark.parametrize(("reply", "state"), [([1.0], "open"), ("text", "closed")])
def test_a_signature_is_judged_before_anything_runs(planned: Project, reply: Any, state: str) -> None:
    dossier = known(planned.workspace, "diabetes:2")
    signature = Contract(infer([1.0]), infer(reply), "signature").to_json()
    signed = dossier.having(model=dossier.need_model().model_copy(update={"signature": signature}))
    with planned.open() as opened:
        assert of(judged(planned.workspace, opened, signed, "prod"), "contract")[0] == state


def test_a_release_that_was_not_tested_is_tested_by_the_run(planned: Project) -> None:
    (planned.root / "script.json").write_text('{"smoke-test dev": {"raise": "WaitingError", "say": "later"}}')
    (planned.root / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}, prod: {}}\n")
    with planned.open() as opened:
        runner = Runner(planned.workspace, opened)
        runner.work(run_id=runner.start("diabetes:2").number)
        dossier = opened.runs.dossier(2)
        found = judged(planned.workspace, opened, dossier, "prod")
    assert of(found, "smoke-test")[1:] == (
        "smoke-test: judged after smoke-test dev, which measures it in the same run",
        "",
    )
