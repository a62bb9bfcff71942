"""The contract of a gate: a pure judge of evidence. Tasks collect, gates judge, so every caller gets one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from stageway import plugins
from stageway.evidence import Evidence
from stageway.specs import GateSpec


@dataclass(frozen=True)
class Yes:
    """The gate is open; *why* names the numbers."""

    why: str


@dataclass(frozen=True)
class No:
    """The gate is closed for this evidence; only other evidence changes it."""

    why: str


@dataclass(frozen=True)
class NotEnough:
    """Nothing can be said yet. *what* is missing, *how* says how to get it, *who* can."""

    what: str
    how: str
    who: str = "anyone"


Verdict = Yes | No | NotEnough


@dataclass(frozen=True)
class Incumbent:
    """The release that a stage holds, with its evidence by kind."""

    label: str
    release: str
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """The candidate's way: which stage it asks to enter, and what each stage holds now (absent: nothing)."""

    stage: str
    label: str
    incumbents: Mapping[str, Incumbent] = field(default_factory=dict)

    @property
    def here(self) -> Incumbent | None:
        return self.incumbents.get(self.stage)


class Gate(Protocol):
    """A gate class has ``Options`` (a pydantic model; what YAML may say) and is made with them."""

    Options: type[BaseModel]

    def needs(self) -> Sequence[str]:
        """Name the kinds of evidence it reads."""

    def judge(self, evidence: Mapping[str, Evidence], incumbent: Standing, now: datetime) -> Verdict:
        """Answer from the arguments alone: no clock, no file, no network."""


@dataclass(frozen=True)
class Judged:
    """One gate's verdict, ready for a table."""

    gate: str
    verdict: Verdict

    @property
    def open(self) -> bool:
        return isinstance(self.verdict, Yes)

    def sentence(self) -> str:
        if isinstance(self.verdict, NotEnough):
            return f"{self.gate}: not enough evidence, needs {self.verdict.what}; {self.verdict.how}"
        return f"{self.gate}: {self.verdict.why}"


def assess(
    gates: Sequence[GateSpec], evidence: Mapping[str, Evidence], incumbent: Standing, now: datetime
) -> list[Judged]:
    """Judge every gate of a stage; the one evaluator of plan, explain, run and approvals."""
    found: list[Judged] = []
    for spec in gates:
        gate_class = plugins.load("gate", spec.name)
        options = spec.options
        if not isinstance(options, gate_class.Options):
            options = gate_class.Options.model_validate(options if options is not None else {})
        found.append(Judged(spec.name, gate_class(options).judge(evidence, incumbent, now)))
    return found
