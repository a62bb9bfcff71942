"""The contract of a gate: a pure judge of evidence. Tasks collect, gates judge, so every caller gets one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, cast

from pydantic import BaseModel, ValidationError

from stageway import plugins
from stageway.errors import ConfigError
from stageway.evidence import Evidence
from stageway.facts import digest
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


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Join the parts of one gate: every no, else everything that is missing, else every yes."""
    no = [one.why for one in verdicts if isinstance(one, No)]
    if no:
        return No("; ".join(no))
    missing = [one for one in verdicts if isinstance(one, NotEnough)]
    if missing:
        return NotEnough(
            *("; ".join(dict.fromkeys(parts)) for parts in zip(*((m.what, m.how, m.who) for m in missing), strict=True))
        )
    return Yes("; ".join(one.why for one in verdicts if isinstance(one, Yes)))


def evidence_digest(evidence: Mapping[str, Evidence]) -> str:
    """Digest of what a person decides about: all evidence except the decisions themselves."""
    return digest({kind: one.digest for kind, one in evidence.items() if kind != "approval"})


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
    """A gate class has ``Options`` (a pydantic model; what YAML may say) and is made with them.

    It may have ``refuses(stages) -> str | None``: why a plan with these options is refused, and the smallest honest
    alternative; *stages* are the pipeline's.
    """

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
    return [Judged(spec.name, _made(spec).judge(evidence, incumbent, now)) for spec in gates]


def refusals(gates: Sequence[GateSpec], stages: Sequence[str]) -> list[str]:
    """Say which gates could not keep what is asked of them, before anything runs."""
    found: list[str] = []
    for spec in gates:
        refuses = getattr(_made(spec), "refuses", None)
        why = refuses(stages) if refuses is not None else None
        if why is not None:
            found.append(f"{spec.name}: {why}")
    return found


def _made(spec: GateSpec) -> Gate:
    gate_class = plugins.load("gate", spec.name)
    options = spec.options
    if not isinstance(options, gate_class.Options):
        try:
            options = gate_class.Options.model_validate(options if options is not None else {})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in ("gates", spec.name, *first["loc"]))
            raise ConfigError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from error
    return cast(Gate, gate_class(options))
