"""A third party's target and registry in memory: the target really serves over HTTP, on a stable port per service.

What a release does is set by the test; a fault may strike before any call.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stageway.config.workspace import Workspace
from stageway.contract import Contract
from stageway.errors import RefusedError, RegistryError
from stageway.release import Model, ModelVersion
from stageway.targets.base import Observed, Revision, Want


@dataclass
class Behaviour:
    """What the service of one release does."""

    contract: Contract
    score: Callable[[Any], tuple[int, Any]]
    swagger: Mapping[str, Any] | None = None
    calls_itself: str | None = None
    says_contract: Contract | None = None
    starts: bool = True
    log: list[str] = field(default_factory=list)


class Service:
    """One endpoint; what answers there is swapped without a failed request."""

    def __init__(self) -> None:
        self.want: Want | None = None
        self.behaviour: Behaviour | None = None
        self.since = 0
        self.connections = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # a reply is one packet

            def setup(self) -> None:
                service.connections += 1
                super().setup()

            def do_GET(self) -> None:
                assert service.behaviour is not None
                if self.path == "/":
                    self.reply(200, b"Healthy")
                elif self.path == "/contract.json":
                    said = service.behaviour.says_contract or service.behaviour.contract
                    self.reply(200, json.dumps(said.to_json()).encode())
                elif self.path == "/swagger.json" and service.behaviour.swagger is not None:
                    self.reply(200, json.dumps(service.behaviour.swagger).encode())
                else:
                    self.reply(404, b'{"message": "not here"}')

            def do_POST(self) -> None:
                assert service.behaviour is not None
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, reply = service.behaviour.score(body)
                self.reply(status, reply if isinstance(reply, bytes) else json.dumps(reply).encode())

            def reply(self, status: int, body: bytes) -> None:
                assert service.want is not None
                assert service.behaviour is not None
                self.send_response(status)
                self.send_header("x-stageway-release", service.behaviour.calls_itself or service.want.release.id)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class World:
    """Everything outside of the tasks, for one project."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    applied: list[Want] = field(default_factory=list)
    models: dict[str, Model] = field(default_factory=dict)
    samples: dict[str, Path] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    faults: dict[str, BaseException] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()

    def strike(self, call: str) -> None:
        fault = self.faults.pop(call, None)
        if fault is not None:
            raise fault

    def stop(self) -> None:
        for service in self.services.values():
            service.stop()


WORLDS: dict[Path, World] = {}


class LoopbackTarget:
    """Serves on 127.0.0.1 from this process."""

    def __init__(self, workspace: Workspace) -> None:
        self.world = WORLDS[workspace.root]
        self.capabilities = self.world.capabilities

    def plan(self, want: Want) -> list[str]:
        return []

    def apply(self, want: Want) -> Observed:
        self.world.strike("apply")
        behaviour = self.world.behaviours[want.release.id]
        if not behaviour.starts:
            raise RefusedError(f"{want.release.label} did not start", detail="\n".join(behaviour.log))
        self.world.applied.append(want)
        service = self.world.services.setdefault(want.service, Service())
        if service.want != want:
            service.behaviour, service.want, service.since = behaviour, want, int(time.time() * 1000)
        return self.observe(want.service)

    def observe(self, service: str) -> Observed:
        self.world.strike("observe")
        found = self.world.services.get(service)
        if found is None or found.want is None:
            return Observed(service=service)
        release = found.want.release
        revision = Revision(
            name=found.want.revision,
            release=release.id,
            label=release.label,
            weight=1.0,
            health="ready",
            since=found.since,
        )
        return Observed(service=service, endpoint=found.endpoint, revisions=(revision,))

    def route(self, service: str, weights: Mapping[str, float]) -> Observed:
        return self.observe(service)

    def logs(self, service: str, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
        found = self.world.services.get(service)
        if found is not None and found.behaviour is not None:
            yield from found.behaviour.log[-lines:]

    def delete(self, service: str) -> None:
        found = self.world.services.pop(service, None)
        if found is not None:
            found.stop()


class MemoryRegistry:
    """Versions, aliases and tags of one project."""

    def __init__(self, workspace: Workspace) -> None:
        self.world = WORLDS[workspace.root]
        self.identity = "memory"

    def get(self, reference: str) -> Model:
        found = self.world.models.get(reference)
        if found is None:
            raise RegistryError(f"no version is called {reference!r}")
        return found

    def find(self, version: ModelVersion) -> Model | None:
        self.world.strike("find")
        found = self.world.models.get(version.label)
        return found if found is not None and found.id == version else None

    def names(self) -> Sequence[str]:
        return sorted({one.id.name for one in self.world.models.values()})

    def versions(self, name: str, *, since: int | None = None) -> Sequence[Model]:
        found = [one for one in self.world.models.values() if one.id.name == name and one.id.created >= (since or 0)]
        return sorted(found, key=lambda one: one.id.created, reverse=True)

    def samples(self, model: Model, into: Path) -> Path | None:
        folder = self.world.samples.get(model.label)
        return None if folder is None else Path(shutil.copytree(folder, into))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self.world.strike("set_alias")
        self.world.aliases[alias] = f"{name}:{version}"

    def delete_alias(self, name: str, alias: str) -> None:
        self.world.aliases.pop(alias, None)

    def aliases(self, name: str) -> Mapping[str, str]:
        return {alias: label.partition(":")[2] for alias, label in self.world.aliases.items()}

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        self.world.strike("set_tags")
        self.world.tags.setdefault(version.label, {}).update(tags)

    def delete(self, reference: str) -> ModelVersion:
        return self.world.models.pop(reference).id

    def ping(self) -> None:
        self.world.strike("ping")
