"""A project whose target and registry are a third party's, so that tasks meet them by the door that outsiders use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stageway import plugins, store
from stageway.bundle import Bundle, Manifest, ModelPlace
from stageway.config.workspace import Workspace
from stageway.contract import Contract, infer
from stageway.dossier import Dossier
from stageway.evidence import Profile
from stageway.release import Model, ModelVersion, Release
from stageway.store import Store

HERE = Path(__file__).parent / "third_party"

ENTRY_POINTS = """
[stageway.targets]
loopback = stageway_places:LoopbackTarget
[stageway.registries]
mlflow = stageway_places:MemoryRegistry
"""

PIPELINE = """
model: diabetes
serve: {entry-script: score.py, samples: samples}
stages:
  dev: {target: loopback}
  prod: {target: loopback}
"""

ROWS = {"data": [[0.1, 0.2], [0.3, 0.4]]}
REPLY = [203.4, 68.9]


@dataclass
class Project:
    """A project folder, and the world around it."""

    root: Path
    cache: Path
    world: Any
    places: Any

    def write(self, text: str) -> None:
        (self.root / "stageway.yml").write_text(text)

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.root, {"STAGEWAY_CACHE": str(self.cache)})

    def store(self) -> Store:
        return store.open(self.workspace)

    def sample(self, name: str, request: Any, expected: Any = None) -> None:
        (self.root / "samples" / f"{name}.json").write_text(json.dumps(request))
        if expected is not None:
            (self.root / "samples" / f"{name}.expected.json").write_text(json.dumps(expected))

    def version(
        self,
        number: int,
        *,
        reply: Any = REPLY,
        status: int = 200,
        score: Callable[[Any], tuple[int, Any]] | None = None,
        contract: Contract | None = None,
        metrics: dict[str, float] | None = None,
        **behaviour: Any,
    ) -> Dossier:
        """Register and package a version whose service replies as said; return its dossier."""
        made = contract or Contract(infer(ROWS), infer(REPLY), "samples")
        identity = ModelVersion(registry="memory", name="diabetes", version=str(number), created=1000 + number)
        model = Model(id=identity, digest=f"sha256:{number:064d}", metrics=metrics or {})
        manifest = Manifest(
            layers=(),
            models=(ModelPlace(name="diabetes", version=str(number)),),
            python="3.11",
            platform="any",
            entry_script="score.py",
            serve_digest="sha256:serve",
        )
        Bundle.write(self.cache, manifest)
        release = Release(
            model=identity,
            model_digest=model.digest,
            image_digest=manifest.digest,
            serve_digest=manifest.serve_digest,
            contract_digest=made.digest,
        )
        self.world.models[model.label] = model
        self.world.behaviours[release.id] = self.places.Behaviour(
            contract=made, score=score or (lambda body: (status, reply)), **behaviour
        )
        return Dossier(pipeline="diabetes", model=model, contract=made.to_json(), release=release)

    def holds(self, stage: str) -> str | None:
        """Return the version that the stage's place reports."""
        service = self.world.services.get(f"diabetes-{stage}")
        return None if service is None else str(service.want.release.label)

    def agrees(self, stage: str) -> str:
        """Return the version of *stage* after making sure that place, registry and history say the same."""
        held = self.holds(stage)
        assert held is not None
        release = self.world.services[f"diabetes-{stage}"].want.release.id
        with self.store() as opened:
            row = opened.stages.current(stage)
        assert row is not None
        assert (row.label, row.release) == (held, release)
        assert self.world.aliases[stage] == held
        assert self.world.tags[held][f"stageway.release.{stage}"] == release
        return held


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project with two stages and one sample, in a world of its own."""
    site = tmp_path / "site"
    information = site / "stageway_places-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: stageway-places\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.syspath_prepend(str(site))
    plugins.found.cache_clear()
    import stageway_places as places  # type: ignore[import-not-found,unused-ignore]

    root = (tmp_path / "project").resolve()
    (root / "samples").mkdir(parents=True)
    (root / "score.py").write_text("def run(data): ...\n")
    world = places.WORLDS[root] = places.World()
    made = Project(root, tmp_path / "cache", world, places)
    made.write(PIPELINE)
    made.sample("two-patients", ROWS, REPLY)
    yield made
    world.stop()
    del places.WORLDS[root]
    plugins.found.cache_clear()


@pytest.fixture
def measured() -> Profile:
    """A profile as the task ``profile`` leaves it."""
    return Profile(
        service_ms_p50=2.0,
        service_ms_p95=4.0,
        throughput_rps=400.0,
        memory_peak_mib=130.0,
        memory_idle_mib=110.0,
        start_seconds=1.0,
        requests=100,
        errors=0,
        cpu_per_request_ms=2.0,
        recommended_cpu=0.5,
        recommended_memory_mib=256,
        budget_seconds=3.0,
        machine="this",
    )
