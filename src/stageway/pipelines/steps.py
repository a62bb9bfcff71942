"""The steps of a pipeline, derived from its stages: what runs in which order, with which inputs."""

from __future__ import annotations

from typing import Any

from stageway.facts import Fact
from stageway.specs import PipelineSpec


class Step(Fact):
    """One task of a run; *stage* is empty where it belongs to none."""

    number: int
    task: str
    stage: str = ""

    @property
    def name(self) -> str:
        return f"{self.task} {self.stage}".rstrip()


def steps(spec: PipelineSpec) -> tuple[Step, ...]:
    """Return the way of a version: prepared once, placed in the first stage, promoted through the others."""
    ways = [("register", ""), ("profile", ""), ("package", "")]
    for at, stage in enumerate(spec.stages):
        ways += [("promote" if at else "deploy", stage), ("smoke-test", stage)]
    return tuple(Step(number=number, task=task, stage=stage) for number, (task, stage) in enumerate(ways, start=1))


def after(spec: PipelineSpec, number: int) -> Step | None:
    """Return the step that follows *number*, or ``None`` when the run is through."""
    return next((step for step in steps(spec) if step.number == number + 1), None)


def inputs(task: str, stage: str, label: str) -> dict[str, Any]:
    """Return what the task is called with, beside dossier and workspace."""
    if task == "register":
        return {"version": label}
    if task == "promote":
        return {"to": stage}
    return {"stage": stage} if stage else {}


SETTLING = ("smoke-test", "rollback")
"""Tasks that prove what a stage was given, or take it away: done before their run may be ended from outside."""

PLACING = ("deploy", "promote")
"""Tasks that change what a stage holds: not done for a stage that is held, nor for a version that is gone."""
