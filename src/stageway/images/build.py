"""From a model version and a serve config to a bundle: four layers, each made only when what it is made from is new."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import stageway
from stageway import output, samples
from stageway.bundle import MODELS, Bundle, Manifest, ModelPlace, check_variables, machine
from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, PackagingError
from stageway.facts import digest
from stageway.images import cache as caches
from stageway.images import lock as locks
from stageway.images import locked, sources, tree
from stageway.images.accelerate import FRAMEWORKS, Accelerator, Subject
from stageway.images.declared import declared
from stageway.images.layers import LayerStore
from stageway.registries.base import Registry
from stageway.release import Layer, Model, check_model_name
from stageway.samples import Sample
from stageway.specs import ServeSpec

SERVING = ("__init__.py", "errors.py", "contract.py", "serving")
"""All of Stageway that goes into an image."""

PACKAGES = {
    "ScikitLearn": ("scikit-learn",),
    "Onnx": ("onnxruntime", "onnxruntime-gpu"),
    "TensorFlow": ("tensorflow", "tensorflow-cpu"),
    "XGBoost": ("xgboost", "xgboost-cpu"),
    "LightGBM": ("lightgbm",),
    "TorchScript": ("torch",),
    "MLflow": ("mlflow", "mlflow-skinny"),
}
"""What a framework is served with when there is no entry script: one of these packages."""


def build(workspace: Workspace, model: Model, registry: Registry) -> Bundle:
    """Return the bundle of *model* as ``stageway.yml`` serves it; what is there already is not made again.

    Raises ``ConfigError``, ``PackagingError`` (the resolver's own words among them), or what the registry raises.
    """
    return _Build(workspace, registry).bundle(model)


def dependencies(workspace: Workspace) -> Layer:
    """Return the dependency layer of *workspace* alone, made unless it is there."""
    return _Build(workspace, None).dependencies(locks.current(workspace))


@dataclass
class _Build:
    """One build: remembers which layers were there, to say it in the end."""

    workspace: Workspace
    registry: Registry | None
    made: list[str] = field(default_factory=list)

    def bundle(self, model: Model) -> Bundle:
        serve, root = self.workspace.spec.serve, self.workspace.file
        check_variables(serve.environment_variables, f"{root}: serve.environment-variables")
        own = sources.gather(self.workspace)
        entry = own.entry_script if own is not None else None
        _check_python(self.workspace)
        lock = locks.current(self.workspace)
        framework = _framework(self.workspace, model, lock) if entry is None else None
        models = self._models(model)
        store = LayerStore(self.workspace.cache)
        layers = [self.dependencies(lock), self._serving(store)]
        layers += [self._model(store, one) for one in models]
        source = self._source(store, own) if own is not None else None
        layers += [source] if source is not None else []
        found = self._samples(model) if model.signature is None or framework in FRAMEWORKS else ()
        if framework in FRAMEWORKS and len(models) == 1 and serve.accelerate == "auto":
            layers += self._accelerated(store, lock, model, framework, layers, found)
        contract = declared(model, found, framework)
        manifest = Manifest(
            layers=tuple(layers),
            models=tuple(ModelPlace(name=one.id.name, version=one.id.version) for one in models),
            python=machine.python_version(),
            platform=machine.platform_name(),
            entry_script=entry,
            source_directory=own.directory if own is not None else None,
            framework=framework,
            environment_variables=serve.environment_variables,
            contract=contract.to_json() if contract is not None else None,
            batching=serve.batching,
            batch_rows=serve.batch_rows,
            serve_digest=digest(
                {
                    "entry_script": entry,
                    "source": source.digest if source is not None else None,
                    "lock": lock.digest,
                    "framework": framework,
                    "environment_variables": serve.environment_variables,
                    "python": machine.python_version(),
                    **_newer(serve),
                }
            ),
        )
        with caches.complaints(self.workspace.cache):
            made = Bundle.write(self.workspace.cache, manifest)
        output.note(f"image of {manifest.label}: {', '.join(self._words(layer) for layer in layers)}")
        return made

    def dependencies(self, lock: locks.Lock) -> Layer:
        """The packages of the lock, as wheels unpacked for this Python and platform; hashes are verified."""
        _check_python(self.workspace)
        made_from = {"lock": lock.digest, "python": machine.python_version(), "platform": machine.platform_name()}
        store = LayerStore(self.workspace.cache)
        options = locks.index_options(self.workspace)

        def fill(content: Path) -> None:
            locked.install(lock, options, content, store.cache)

        return self._layer(store, "dependencies", made_from, fill)

    def _accelerated(
        self,
        store: LayerStore,
        lock: locks.Lock,
        model: Model,
        framework: str,
        layers: list[Layer],
        found: tuple[Sample, ...],
    ) -> list[Layer]:
        """Return the layer with a verified ONNX form, if there is one; says so, or why not."""
        accelerator = Accelerator(store, lock, locks.index_options(self.workspace))
        outcome = accelerator.accelerate(
            Subject(
                model=model,
                framework=framework,
                dependencies=layers[0],
                serving=layers[1],
                content=layers[2],
                variables=self.workspace.spec.serve.environment_variables,
                bodies=[one.request for one in found],
            )
        )
        if outcome.layer is None:
            output.note(f"not accelerated, the original serves: {outcome.sentence}")
            return []
        output.note(f"accelerated: {outcome.sentence}")
        return [outcome.layer]

    def _serving(self, store: LayerStore) -> Layer:
        package = Path(stageway.__file__).parent
        files = [
            path
            for name in SERVING
            for path in ([package / name] if name.endswith(".py") else sorted((package / name).rglob("*")))
            if path.is_file() and "__pycache__" not in path.parts
        ]
        made_from = [[path.relative_to(package).as_posix(), tree.file_digest(path)] for path in files]

        def fill(content: Path) -> None:
            for path in files:
                target = content / "stageway" / path.relative_to(package)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

        return self._layer(store, "serving", made_from, fill)

    def _source(self, store: LayerStore, own: sources.Sources) -> Layer:
        listing = own.listing()
        return self._layer(store, "source", listing, lambda content: own.copy(content, listing))

    def _model(self, store: LayerStore, model: Model) -> Layer:
        """The version's files below its own folder. They are fetched once per digest and linked from there."""
        place = ModelPlace(name=check_model_name(model.id.name), version=model.id.version)
        if not place.version.isdecimal():
            raise PackagingError(f"model {place.label!r}: a version is a number; register it again")

        def fetch(content: Path) -> None:
            assert self.registry is not None
            content.rmdir()
            self.registry.fetch(model, content)

        def fill(content: Path) -> None:
            files = store.make("model-files", model.digest, fetch)
            target = content / MODELS / place.name / place.version
            target.mkdir(parents=True)
            tree.copy(store.content(files), target, store.listing(files), link=True)

        return self._layer(store, "model", [place.path, model.digest], fill)

    def _models(self, model: Model) -> list[Model]:
        """Return the models of the service: of several, *model* and the newest versions of the others."""
        names = self.workspace.spec.model_names
        if len(names) < 2 or model.id.name not in names:
            return [model]
        assert self.registry is not None
        return [model if name == model.id.name else self.registry.get(name) for name in names]

    def _samples(self, model: Model) -> tuple[Sample, ...]:
        """Return the version's own samples, else those of the project."""
        if model.has_samples and self.registry is not None:
            with TemporaryDirectory() as folder:
                own = self.registry.samples(model, Path(folder) / "samples")
                if own is not None:
                    return samples.read(own)
        folder_name = self.workspace.spec.serve.samples
        return samples.read(self.workspace.root / folder_name) if folder_name is not None else ()

    def _layer(self, store: LayerStore, kind: str, made_from: Any, fill: Callable[[Path], None]) -> Layer:
        def filling(content: Path) -> None:
            fill(content)
            self.made.append(kind)

        return store.make(kind, made_from, filling)

    def _words(self, layer: Layer) -> str:
        return f"{layer.kind} {_size(layer.size)} {'made' if layer.kind in self.made else 'reused'}"


def _check_python(workspace: Workspace) -> None:
    wanted, here = workspace.spec.serve.python, machine.python_version()
    if wanted is not None and wanted != here:
        raise PackagingError(
            f"{workspace.file}: serve.python: {wanted!r} is asked for and this Stageway runs on {here}; "
            f"install it with Python {wanted}, or write {here!r}"
        )


def _newer(serve: ServeSpec) -> dict[str, Any]:
    """Return the keys that came later, where they are not their defaults: older releases keep their digests."""
    now = {"accelerate": serve.accelerate, "batching": serve.batching, "batch_rows": serve.batch_rows}
    return {name: value for name, value in now.items() if value != ServeSpec.model_fields[name].default}


def _framework(workspace: Workspace, model: Model, lock: locks.Lock) -> str:
    """Return the framework that serves *model* without an entry script."""
    script = f"{workspace.file}: serve.entry-script: missing"
    if model.framework is None:
        raise ConfigError(f"{script}, and {model.label} was registered without a framework; write one of the two")
    if model.framework not in PACKAGES:
        raise ConfigError(
            f"{script}, and framework {model.framework!r} of {model.label} is not served without one; "
            f"known: {', '.join(PACKAGES)}"
        )
    packages = PACKAGES[model.framework]
    if not lock.names & {*packages}:
        # A graph's version is that of the package that wrote it, not of the one that runs it.
        version = f"=={model.framework_version}" if model.framework_version and model.framework != "Onnx" else ""
        where = workspace.spec.serve.dependencies or "a file named by serve.dependencies"
        raise PackagingError(
            f"{lock.path}: has no {' or '.join(packages)}, which serves {model.framework} models such as "
            f"{model.label}; write {packages[0]}{version} into {where} and run `stageway lock`"
        )
    if "skops" not in lock.names and any(name.lower().endswith(".skops") for name in model.files):
        where = workspace.spec.serve.dependencies or "a file named by serve.dependencies"
        raise PackagingError(
            f"{lock.path}: has no skops, which reads the model file of {model.label}; write skops into {where} "
            "and run `stageway lock`"
        )
    return model.framework


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 // 10 else f"{size / 2**10:,.1f} KiB"
