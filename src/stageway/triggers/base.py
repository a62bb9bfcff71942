"""The contract of a trigger: a source of events that start a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pydantic import BaseModel

from stageway.events import Event
from stageway.registries.base import Registry


class Trigger(Protocol):
    """Made as ``Trigger(options, models, registry)``; ``Options`` is a pydantic model of what YAML may say."""

    Options: type[BaseModel]

    def __init__(self, options: BaseModel, models: tuple[str, ...], registry: Registry) -> None: ...

    def events(self, since: int | None) -> Iterator[Event]:
        """Yield events at or after *since* (ms since 1970; ``None``: all there are), oldest first.

        May yield an event again (the ledger knows identities); must not miss one. Raises ``TryAgainError`` when the
        source is away.
        """
