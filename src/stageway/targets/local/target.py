"""The client's side of the target ``local``: prepares app roots and asks the keeper; see the folder's first file."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stageway.bundle import Bundle, Launch, machine
from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, TargetError, TryAgainError
from stageway.targets.base import Observed, Revision, Want
from stageway.targets.local import logs
from stageway.targets.local.client import TIMES, KeeperClient
from stageway.targets.local.place import Labels, ServicePlace, services, unwritable

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which numeric libraries limit their threads."""

COLLECTED = "collected"
"""Folder of the workspace's state with the inputs and outputs that services kept."""


class LocalTarget:
    """Runs releases as processes of this machine, each service behind a stable port on 127.0.0.1."""

    capabilities = frozenset({"weights"})

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.keeper = KeeperClient(workspace.state)

    def plan(self, want: Want) -> list[str]:
        """Say what differs here from a target with containers."""
        found = []
        if want.config.auth_file is None:
            found.append("requests are not authenticated: the endpoint is on 127.0.0.1, for this machine only")
        else:
            found.append(f"requests need a key or a token ({want.config.auth_file.name} has their digests)")
        if want.config.cpu is not None or want.config.memory_mib is not None:
            found.append("cpu and memory are not enforced by local; cpu limits the threads of numeric libraries")
        if want.bundle is not None:
            manifest = Bundle.read(want.bundle).manifest
            made = (manifest.python, manifest.platform)
            here = (machine.python_version(), machine.platform_name())
            if made != here:
                found.append(f"the release is for Python {made[0]} on {made[1]}; this is Python {here[0]} on {here[1]}")
        found.append(f"the process uses this machine's Python ({machine.interpreter()}), not one of an image")
        return found

    def apply(self, want: Want) -> Observed:
        place = ServicePlace(self.workspace.state, want.service)
        revision = place.revision(want.revision)
        labels = Labels(
            service=want.service,
            stage=want.stage,
            revision=want.revision,
            release=want.release.id,
            model=want.release.label,
            config=want.config.digest,
            since=0,
        )
        ask: dict[str, Any] = {
            "service": want.service,
            "labels": labels.to_json(),
            "port": want.config.port,
            "weight": want.weight,
            "timeout": want.config.ready_timeout + 2 * want.config.drain_timeout + 60,
        }
        answer = self.keeper.ask("apply", **ask)
        for _ in range(TIMES):
            if "needs" not in answer:
                return Observed.model_validate(answer)
            socket = Path(answer["socket"])
            incoming = place.incoming / secrets.token_hex(8)
            try:
                incoming.mkdir(parents=True)
                launch = self.launch(want, incoming / "app", revision.app, socket=socket, control=revision.control)
                ask["launch"] = {
                    "argv": list(launch.argv),
                    "env": launch.env,
                    "cwd": str(launch.cwd),
                    "socket": str(socket),
                    "workers": want.config.workers,
                    "ready_timeout": want.config.ready_timeout,
                    "drain_timeout": want.config.drain_timeout,
                }
                answer = self.keeper.ask("apply", app=str(incoming / "app"), **ask)
            except OSError as error:
                raise TargetError(unwritable(error)) from error
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
        raise TryAgainError(
            f"the keeper of {self.workspace.root} was replaced again and again; .stageway/keeper.log says why"
        )

    def launch(self, want: Want, fresh: Path, app: Path, *, socket: Path, control: Path) -> Launch:
        """Make the app root in *fresh* and say how to start its server once it is at *app*."""
        if want.bundle is None:
            raise ConfigError(f"release {want.release.id} has no bundle on this machine; run `stageway package` first")
        bundle = Bundle.read(want.bundle)
        bundle.unpack(fresh)
        env = {"SERVICE_NAME": want.service, **want.config.environment_variables}
        if want.config.telemetry:
            env = {**{name: text for name, text in os.environ.items() if name.startswith("OTEL_")}, **env}
        if want.config.cpu is not None:
            threads = str(max(1, round(want.config.cpu / want.config.workers)))
            env = {**dict.fromkeys(THREADS, threads), **env}
        return bundle.launch(
            app,
            uds=socket,
            control=control,
            workers=want.config.workers,
            release=want.release.id,
            version=want.release.label,
            env=env,
            arguments=want.config.arguments(auth=want.config.auth_file, collected=self.workspace.state / COLLECTED),
        )

    def observe(self, service: str) -> Observed:
        place = ServicePlace(self.workspace.state, service)
        if place.read() is None:
            return Observed(service=service)
        if self.keeper.should_live:
            return Observed.model_validate(self.keeper.ask("observe", service=service))
        return _stopped(place)

    def route(self, service: str, weights: Mapping[str, float]) -> Observed:
        """Share the traffic; a revision with 0 stays ready without traffic, one that is not named leaves."""
        if not weights or abs(sum(weights.values()) - 1) > 1e-6 or min(weights.values()) < 0:
            raise TargetError(f"service {service}: shares of traffic add up to 1, and these do not: {dict(weights)}")
        ServicePlace(self.workspace.state, service)
        return Observed.model_validate(self.keeper.ask("route", service=service, weights=dict(weights)))

    def logs(self, service: str, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
        place = ServicePlace(self.workspace.state, service)
        if _log(place) is None:
            raise TargetError(f"no service is called {service!r} here, and none was")
        if follow:
            return logs.follow(lambda: _log(place), lines)
        found = _log(place)
        return iter(logs.tail(found, lines) if found is not None else [])

    def delete(self, service: str) -> None:
        place = ServicePlace(self.workspace.state, service)
        if place.folder.exists():
            self.keeper.ask("delete", timeout=600, service=service)

    def up(self) -> list[Observed]:
        """Start the services that were stopped, by ``down`` or with the machine; wait until they answer or fail."""
        if not any(place.read() for place in services(self.workspace.state)):
            return []
        return [Observed.model_validate(one) for one in self.keeper.ask("up", timeout=600)]

    def down(self) -> list[str]:
        """Stop all services and the keeper; return the names of the services that ran."""
        if not self.keeper.should_live:
            return []
        # A killed keeper is replaced first: only a keeper knows what runs.
        stopped: list[str] = self.keeper.ask("down", timeout=600)
        self.keeper.wait_for_end()
        return stopped


def _stopped(place: ServicePlace) -> Observed:
    """Report a service of which nothing runs, from its files."""
    file = place.read()
    if file is None:
        return Observed(service=place.name)
    found = []
    for name, weight in file.weights.items():
        labels = place.revision(name).labels()
        if labels is not None:
            found.append(
                Revision(
                    name=name,
                    release=labels.release,
                    label=labels.model,
                    weight=weight,
                    health="stopped",
                    since=labels.since,
                    restarts=labels.restarts,
                    reason="stopped; `stageway up` starts it",
                )
            )
    return Observed(service=place.name, endpoint=f"http://127.0.0.1:{file.port}", revisions=tuple(found))


def _log(place: ServicePlace) -> Path | None:
    """Return the log of the revision that has most of the traffic, else the one that was written last."""
    file = place.read()
    if file is not None and file.weights:
        return place.revision(max(file.weights, key=lambda name: file.weights[name])).log
    return next((one.log for one in place.revisions() if one.log.exists()), None)
