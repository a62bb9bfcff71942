"""What a trigger saw happen. The same thing that happened has one identity, whatever source told it."""

from __future__ import annotations

from stageway.facts import Fact
from stageway.release import ModelVersion


class Event(Fact):
    """*identity* is unique for what happened; *cause* says it in words for the ledger; *at* in ms since 1970."""

    identity: str
    cause: str
    model: ModelVersion
    at: int


def version_created(model: ModelVersion) -> Event:
    """Return the one event of a registered version."""
    return Event(
        identity=f"model-version:{model.key}", cause=f"{model.label} was registered", model=model, at=model.created
    )
