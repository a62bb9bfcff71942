"""The gate ``approval``: has a person agreed to this release entering this stage?

``approval: {}``, or ``approval: {from: [release-engineers], count: 2, expires: 24h}``. Who decided is only as sure as
the decision's attestation: without keys a decision is *unattested*, and what needs more than that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from stageway.evidence import Evidence
from stageway.gates.base import No, NotEnough, Standing, Verdict, Yes, evidence_digest
from stageway.specs import Duration, Spec


class Approvers(Spec):
    """Whose agreement is needed, how often, and for how long it counts."""

    from_: list[str] | None = Field(None, alias="from", min_length=1, description="people or roles who may approve")
    count: int = Field(1, ge=1, description="how many different people must approve")
    expires: Duration | None = Field(None, gt=0, description="an approval older than this does not count")


class ApprovalGate:
    """Judges the decisions that people left."""

    Options = Approvers

    def __init__(self, options: Approvers) -> None:
        self.options = options

    def needs(self) -> Sequence[str]:
        return ("approval",)

    def refuses(self, stages: Sequence[str]) -> str | None:
        """Refuse what only signed approvals could keep."""
        if self.options.from_ is not None:
            return (
                f"from: {', '.join(self.options.from_)}: who approves cannot be proven without approvers' keys; "
                "write `approval: {}`: any local approval counts, recorded as unattested"
            )
        if self.options.count > 1:
            return (
                f"count: {self.options.count}: that two approvals come from two people cannot be proven without "
                "approvers' keys; write `approval: {}`: one local approval counts, recorded as unattested"
            )
        return None

    def judge(self, evidence: Mapping[str, Evidence], incumbent: Standing, now: datetime) -> Verdict:
        """Count the newest decision of each person; one rejection closes the gate until that person approves."""
        newest: dict[str, dict[str, Any]] = {}
        for decision in sorted(_decisions(evidence, incumbent), key=lambda one: int(one["at"])):
            newest[str(decision["by"])] = decision
        rejected = [one for one in newest.values() if one["decision"] == "reject"]
        if rejected:
            return No("; ".join(f"rejected by {_who(one)}{_note(one)}" for one in rejected))
        approved = [one for one in newest.values() if one["decision"] == "approve"]
        fresh = [one for one in approved if not self._expired(one, now)]
        counted = [one for one in fresh if self._counts(one)]
        if len(counted) >= self.options.count:
            return Yes("; ".join(f"approved by {_who(one)}{_note(one)}" for one in counted))
        return self._missing(len(counted), approved, fresh, incumbent)

    def _expired(self, decision: Mapping[str, Any], now: datetime) -> bool:
        return self.options.expires is not None and now.timestamp() - int(decision["at"]) / 1000 > self.options.expires

    def _counts(self, decision: Mapping[str, Any]) -> bool:
        if self.options.from_ is not None:
            return bool(decision.get("attested")) and decision["by"] in self.options.from_
        return self.options.count == 1 or bool(decision.get("attested"))

    def _missing(
        self, counted: int, approved: list[dict[str, Any]], fresh: list[dict[str, Any]], standing: Standing
    ) -> NotEnough:
        what = "an approval" if self.options.count == 1 else f"{self.options.count} approvals (so far {counted})"
        old = [one for one in approved if one not in fresh]
        if old:
            what += f"; expired: {', '.join(_who(one) for one in old)}"
        who = " or ".join(self.options.from_) if self.options.from_ else "anyone with this workspace"
        return NotEnough(what, f"`stageway approve {standing.label} --stage {standing.stage}`", who)


def _decisions(evidence: Mapping[str, Evidence], standing: Standing) -> list[dict[str, Any]]:
    """Return the decisions on this stage, this release and, where a decision names it, exactly this evidence."""
    if "approval" not in evidence:
        return []
    about = evidence["approval"].release
    judged = evidence_digest(evidence)
    return [
        one
        for one in evidence["approval"].facts.get("decisions", ())
        if one["stage"] == standing.stage
        and (about is None or one.get("release") in (None, about))
        and one.get("evidence") in (None, "", judged)
    ]


def _who(decision: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(int(decision["at"]) / 1000, UTC)
    return f"{decision['by']} at {at:%Y-%m-%d %H:%M} UTC" + ("" if decision.get("attested") else " (unattested)")


def _note(decision: Mapping[str, Any]) -> str:
    return f": {decision['note']}" if decision.get("note") else ""
