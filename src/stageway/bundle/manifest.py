"""What a bundle is made of: layers by digest, and how the server is started on them."""

from __future__ import annotations

from typing import Any

from stageway.errors import PackagingError
from stageway.facts import Fact, digest
from stageway.release import Layer

FORMAT = 1

ACCELERATED = "accelerated"
"""Kind of the layer with a verified ONNX form of the model; only some bundles have one."""

NEWER = ("batching", "batch_rows")

MODELS = "azureml-models"
"""Folder of the models below the app root, as v1 has it: ``azureml-models/<name>/<version>/…``."""


class ModelPlace(Fact):
    """One model version of the bundle, and so its folder below the app root."""

    name: str
    version: str

    @property
    def label(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def path(self) -> str:
        return f"{MODELS}/{self.name}/{self.version}"


class Manifest(Fact):
    """The bundle in one file. Exactly one of *entry_script* (relative to the app root) and *framework* is given.

    *contract* is what model signature or samples declare; an entry script's own declaration goes before it.
    *serve_digest* names the serve config alone, without models and serving layer.
    """

    format: int = FORMAT
    layers: tuple[Layer, ...]
    models: tuple[ModelPlace, ...]
    python: str
    platform: str
    entry_script: str | None = None
    source_directory: str | None = None
    framework: str | None = None
    environment_variables: dict[str, str] = {}
    contract: dict[str, Any] | None = None
    batching: str = "auto"
    batch_rows: int = 256
    serve_digest: str

    @property
    def digest(self) -> str:
        """The image digest: of everything that a service can see, so not of sizes and keys.

        A key that is newer than releases that are out there counts only where it is not its default.
        """
        parts = self.model_dump(mode="json", exclude={"layers", "serve_digest"})
        for name in NEWER:
            if parts[name] == type(self).model_fields[name].default:
                del parts[name]
        return digest({**parts, "layers": [[layer.kind, layer.digest] for layer in self.layers]})

    @property
    def label(self) -> str:
        return "+".join(model.label for model in self.models)

    @property
    def model_dir(self) -> str:
        """Value of ``AZUREML_MODEL_DIR``, relative to the app root: the one model's folder, or that of all."""
        return self.models[0].path if len(self.models) == 1 else MODELS

    @property
    def accelerated(self) -> bool:
        """Tell whether a verified ONNX form answers in the model's place."""
        return any(layer.kind == ACCELERATED for layer in self.layers)

    def layer(self, kind: str) -> Layer:
        """Return the layer of *kind*. Raises ``PackagingError`` when the bundle has none."""
        for layer in self.layers:
            if layer.kind == kind:
                return layer
        raise PackagingError(f"the bundle of {self.label} has no {kind} layer; run `stageway package` again")
