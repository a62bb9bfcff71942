"""The contract of a target: a kind of place where releases run.

What runs is read from the labels of the place, never remembered; every call is idempotent by release id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from stageway.facts import Fact, digest
from stageway.release import Release
from stageway.specs import CollectSpec, RequestsSpec

MEBIBYTE = 2**20

Health = Literal["starting", "ready", "failed", "draining", "stopped"]


class DeploymentConfig(Fact):
    """What a stage asks of its target; not part of a release's id. Times in seconds, memory in MiB."""

    port: int | None = None
    cpu: float | None = None
    memory_mib: float | None = None
    workers: int = 1
    ready_timeout: float = 60.0
    drain_timeout: float = 30.0
    environment_variables: dict[str, str] = {}
    requests: RequestsSpec = RequestsSpec()
    auth_file: Path | None = None
    cors: tuple[str, ...] = ()
    collect: CollectSpec | None = None
    telemetry: bool = False
    options: dict[str, Any] = {}

    @property
    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))

    def arguments(self, *, auth: Path | None, collected: Path) -> list[str]:
        """Say this to the scoring server, which finds *auth* and may write below *collected*."""
        requests = self.requests
        found = ["--timeout", f"{requests.timeout:g}", "--concurrency", str(requests.concurrency)]
        found += ["--max-body", str(round(requests.body * MEBIBYTE))]
        if requests.queue_wait is not None:
            found += ["--queue-wait", f"{requests.queue_wait:g}"]
        if auth is not None:
            found += ["--auth", str(auth)]
        for origin in self.cors:
            found += ["--cors", origin]
        if self.collect is not None:
            found += ["--collect", str(collected), "--collect-share", f"{self.collect.share:g}"]
            found += ["--collect-keep", str(round(self.collect.keep * MEBIBYTE))]
            for name in self.collect.without:
                found += ["--collect-without", name]
        return [*found, "--telemetry"] if self.telemetry else found


class Want(Fact):
    """What should be: *service* answers with *release*. *bundle* is the folder of the unpacked layers.

    With a *weight* below 1 the release gets that share of the traffic, where the target has the capability ``weights``,
    and the revisions that were there keep the rest.
    """

    service: str
    stage: str
    release: Release
    config: DeploymentConfig = DeploymentConfig()
    bundle: Path | None = None
    weight: float = 1.0

    @property
    def revision(self) -> str:
        """Name of this revision: the same want has the same name, so it is never started twice."""
        return f"{self.release.id}-{self.config.digest.removeprefix('sha256:')[:8]}"


class Revision(Fact):
    """A release on a service as the place reports it. *weight* is its share of the traffic (0 to 1).

    *since* is ms since 1970.
    """

    name: str
    release: str
    label: str
    weight: float
    health: Health
    since: int
    restarts: int = 0
    reason: str = ""
    log_tail: str = ""


class Observed(Fact):
    """A service as the place reports it; *endpoint* is the base address, such as ``http://127.0.0.1:8890``."""

    service: str
    endpoint: str | None = None
    revisions: tuple[Revision, ...] = ()

    @property
    def serving(self) -> Revision | None:
        """The revision with the largest share of traffic, if any gets traffic."""
        live = [one for one in self.revisions if one.weight > 0]
        return max(live, key=lambda one: one.weight) if live else None


class Target(Protocol):
    """Made with the workspace: ``Target(workspace)``. *capabilities* name what a plan may ask of it.

    Known capabilities: ``weights`` (traffic by share), ``resources`` (cpu and memory are enforced), ``remote`` (not
    this machine), ``replicas``.
    """

    capabilities: frozenset[str]

    def plan(self, want: Want) -> list[str]:
        """Say in sentences what would differ there: interpreter, platform, settings that are not honoured."""

    def apply(self, want: Want) -> Observed:
        """Make it so, without failing a request, and return when the release answers.

        Raises ``RefusedError`` (the service did not become ready; *detail* has the log's last lines, and what ran
        before goes on serving), ``TargetError`` or ``TryAgainError``.
        """

    def observe(self, service: str) -> Observed:
        """Report what runs; a service that does not exist has no revisions."""

    def route(self, service: str, weights: Mapping[str, float]) -> Observed:
        """Share the traffic among revisions by name; the shares add up to 1.

        A revision with the share 0 stays ready; one that is not named is ended when its requests are done.
        """

    def logs(self, service: str, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
        """Yield the last *lines* of the service's log, then new ones while *follow*."""

    def delete(self, service: str) -> None:
        """Stop and remove the service; one that does not exist is no error."""

    def down(self) -> list[str]:
        """Stop what this workspace runs at this place and name the services; nothing to do for a ``remote`` place."""

    def up(self) -> list[Observed]:
        """Start what was stopped, by ``down`` or with the machine; nothing to do for a ``remote`` place."""
