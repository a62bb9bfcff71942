"""A third party's registry, one folder beside the project; and a project that multiplies by its model's number.

For tests of what stands above registries; those of the built-in registry have their own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import RegistryError
from stageway.registries.base import NewVersion, Registered
from stageway.release import Model, ModelVersion, Reference

SCRIPT = """\
import json
import os


def init():
    global factor
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "factor.json")) as file:
        factor = json.load(file)


def run(data):
    return [factor * value for value in json.loads(data)["data"]]
"""


class FolderRegistry:
    """Keeps versions in ``shelf/`` beside the project, so that every process sees the same ones."""

    identity = "shelf"

    def __init__(self, workspace: Workspace) -> None:
        self.root = workspace.root.parent / "shelf"

    @property
    def models(self) -> list[Model]:
        return [Model.model_validate_json(path.read_text()) for path in sorted(self.root.glob("*.json"))]

    def add(self, name: str = "times", files: Mapping[str, str] | None = None, **facts: Any) -> Model:
        """Register *files* as the next version of *name*."""
        files = files or {"factor.json": "2"}
        number = 1 + max((int(one.id.version) for one in self.versions(name)), default=0)
        for path, text in files.items():
            target = self.root / name / str(number) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        content = hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()
        created = 1000 + len(list(self.root.glob("*.made")))
        (self.root / f"{created}.made").touch()
        model = Model(
            id=ModelVersion(registry=self.identity, name=name, version=str(number), created=created),
            digest=f"sha256:{content}",
            files=tuple(sorted(files)),
            **facts,
        )
        (self.root / f"{name}-{number:04d}.json").write_text(model.model_dump_json())
        return model

    def fetched(self) -> int:
        """Say how often files were fetched."""
        log = self.root / "fetched"
        return len(log.read_text()) if log.exists() else 0

    def register(self, want: NewVersion) -> Registered:
        raise RegistryError("add() registers here")

    def get(self, reference: str) -> Model:
        wanted = Reference.parse(reference)
        for model in self.versions(wanted.name):
            if wanted.version in (None, model.id.version):
                return model
        raise RegistryError(f"no version is called {reference!r}")

    def find(self, version: ModelVersion) -> Model | None:
        return next((model for model in self.models if model.id == version), None)

    def names(self) -> Sequence[str]:
        return sorted({model.id.name for model in self.models})

    def versions(self, name: str, *, since: int | None = None) -> Sequence[Model]:
        found = [model for model in self.models if model.id.name == name]
        return [model for model in reversed(found) if since is None or model.id.created >= since]

    def fetch(self, model: Model, into: Path) -> Path:
        with (self.root / "fetched").open("a") as log:
            log.write(".")
        return Path(shutil.copytree(self.root / model.id.name / model.id.version, into))

    def samples(self, model: Model, into: Path) -> Path | None:
        return None

    def set_alias(self, name: str, alias: str, version: str) -> None: ...

    def delete_alias(self, name: str, alias: str) -> None: ...

    def aliases(self, name: str) -> Mapping[str, str]:
        return {}

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None: ...

    def delete(self, reference: str) -> ModelVersion:
        model = self.get(reference)
        (self.root / f"{model.id.name}-{int(model.id.version):04d}.json").unlink()
        shutil.rmtree(self.root / model.id.name / model.id.version)
        return model.id

    def ping(self) -> None: ...


class TimesProject:
    """A project folder; ``workspace()`` reads what is written in it."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.write("stageway.yml", "model: times\nserve:\n  entry-script: score.py\nstages:\n  dev: {}\n")
        self.write("score.py", SCRIPT)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def serve(self, **keys: Any) -> None:
        """Write ``stageway.yml`` with these keys of ``serve`` (JSON is YAML)."""
        spelled = {name.replace("_", "-"): value for name, value in keys.items()}
        self.write("stageway.yml", json.dumps({"model": "times", "serve": spelled, "stages": {"dev": {}}}))

    def sample(self, name: str, request: Any, *expected: Any) -> None:
        """Write a sample, and its reply when one is given."""
        self.write(f"samples/{name}.json", json.dumps(request))
        if expected:
            self.write(f"samples/{name}.expected.json", json.dumps(expected[0]))

    def workspace(self, cache: Path | None = None) -> Workspace:
        return Workspace.open(self.root, {"STAGEWAY_CACHE": str(cache or self.cache)})

    @property
    def shelf(self) -> FolderRegistry:
        return FolderRegistry(self.workspace())

    def version(self, files: Mapping[str, str] | None = None, **facts: Any) -> Dossier:
        """Register a version and return its dossier."""
        return Dossier(pipeline="times", model=self.shelf.add("times", files, **facts))
