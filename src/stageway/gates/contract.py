"""The gate ``contract``: may the clients of the release in this stage go on with the candidate?

``contract: {}``, or ``contract: {requests: true, replies: true, unknown: allow}``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from stageway.contract import Contract, differences
from stageway.evidence import Evidence
from stageway.gates.base import Incumbent, No, NotEnough, Standing, Verdict, Yes
from stageway.specs import Spec


class Sides(Spec):
    """Which sides are compared, and what becomes of a side that nobody declared."""

    requests: bool = Field(True, description="what clients send must still be taken")
    replies: bool = Field(True, description="what clients read must still be given")
    unknown: Literal["refuse", "allow"] = Field("refuse", description="allow: a side that nobody declared may pass")

    @field_validator("replies")
    @classmethod
    def _compares_something(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("requests") is False:
            raise ValueError("requests and replies are both false, so nothing is compared; leave the gate out")
        return value


class ContractGate:
    """Judges the contract of the candidate against that of the release it would replace."""

    Options = Sides

    def __init__(self, options: Sides) -> None:
        self.options = options

    def needs(self) -> Sequence[str]:
        return ("contract",)

    def judge(self, evidence: Mapping[str, Evidence], incumbent: Standing, now: datetime) -> Verdict:
        """Say yes when no client of the incumbent can notice, no with every break, else what is unknown."""
        here = incumbent.here
        if here is None:
            return Yes(f"{incumbent.stage} is empty, so there are no clients to break")
        mine, theirs = _contract(evidence), _contract(here.evidence)
        found = [
            one
            for one in differences(theirs, mine)
            if (one.side == "request" and self.options.requests) or (one.side == "reply" and self.options.replies)
        ]
        if found:
            old, new = _names(incumbent, here)
            return No("; ".join(one.sentence(old, new) for one in found) + "; its clients would break")
        unknown = self._unknown(mine, theirs, incumbent, here)
        if unknown and self.options.unknown == "refuse":
            return NotEnough(
                " and ".join(unknown),
                "register samples with expected replies, declare schemas in the entry script, "
                "or write `unknown: allow` under the gate",
                "who owns the model",
            )
        if unknown:
            return Yes(f"nothing known breaks clients of {here.label}; unknown, and allowed: {' and '.join(unknown)}")
        return Yes(f"clients of {here.label} in {incumbent.stage} can go on with {incumbent.label}")

    def _unknown(self, mine: Contract, theirs: Contract, standing: Standing, here: Incumbent) -> list[str]:
        sides = []
        if self.options.requests:
            sides.append(("the request schema", mine.request, theirs.request))
        if self.options.replies:
            sides.append(("the reply schema", mine.response, theirs.response))
        found = []
        for name, new, old in sides:
            of = [standing.label] if new is None else []
            of += [f"{here.label} in {standing.stage}"] if old is None else []
            if of:
                found.append(f"{name} of {' and of '.join(of)}")
        return found


def _contract(evidence: Mapping[str, Evidence]) -> Contract:
    return Contract.from_json(evidence["contract"].facts) if "contract" in evidence else Contract()


def _names(standing: Standing, here: Incumbent) -> tuple[str, str]:
    """Name both releases; the same version built again is told apart by its release id."""
    old = here.label if here.label != standing.label else f"{here.label} ({here.release})"
    return f"{old} in {standing.stage}", standing.label
