"""The trigger ``model-version``: every version that appears in the registry is an event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stageway.events import Event, version_created
from stageway.registries.base import Registry

_OVERLAP = 60_000
"""How late (ms) a version may become visible: its time is taken before it is committed, by another clock."""


class Options(BaseModel):
    """What ``model-version:`` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: dict[str, str] = Field(default={}, description="only versions that have all of these tags")
    policy: Literal["every", "latest"] = Field(
        default="latest", description="of several versions that wait: run every one, or only the newest"
    )


class ModelVersionTrigger:
    """Yields one event for each version of the pipeline's models."""

    Options: type[BaseModel] = Options

    def __init__(self, options: BaseModel, models: tuple[str, ...], registry: Registry) -> None:
        self.options = options if isinstance(options, Options) else Options.model_validate(options.model_dump())
        self.models = models
        self.registry = registry

    def events(self, since: int | None) -> Iterator[Event]:
        """Yield the events at or after *since*, and some before it, oldest first.

        With ``tags`` all versions that have them are yielded: a tag may come long after its version, at a time that
        no registry tells.
        """
        start = None if since is None or self.options.tags else since - _OVERLAP
        found = [
            version_created(version.id)
            for name in self.models
            for version in self.registry.versions(name, since=start, tags=self.options.tags or None)
        ]
        yield from sorted(found, key=lambda event: (event.at, event.identity))
