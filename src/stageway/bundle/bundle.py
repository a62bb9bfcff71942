"""A bundle on this machine's disk: read it, lay out its app root, say how its server is started.

``<cache>/bundles/<image digest>/bundle.json`` names layers in ``<cache>/layers/<digest>/content``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stageway.bundle import machine
from stageway.bundle.manifest import ACCELERATED, FORMAT, Manifest
from stageway.errors import ConfigError, PackagingError

FILE = "bundle.json"
CONTENT = "content"
OURS = ".stageway"
"""Folder of our own files in an app root; a project's folder of that name is never part of a source layer."""

RESERVED = frozenset(
    {
        "AML_APP_ROOT",
        "AZUREML_MODEL_DIR",
        "AZUREML_SOURCE_DIRECTORY",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONPYCACHEPREFIX",
        "STAGEWAY_SITE",
    }
)
"""Variables that a service gets from its bundle; a serve config cannot set them."""


@dataclass(frozen=True)
class Launch:
    """How to start a process: arguments, the whole environment, the working folder."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = Path()


@dataclass(frozen=True)
class Bundle:
    """One image, unpacked. *folder* is its own; the layers are shared with other bundles of the same cache."""

    folder: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def label(self) -> str:
        return self.manifest.label

    @property
    def cache(self) -> Path:
        return self.folder.parent.parent

    @classmethod
    def write(cls, cache: Path, manifest: Manifest) -> Bundle:
        """Keep *manifest* in *cache*; the same one twice is the same folder."""
        folder = cache / "bundles" / manifest.digest.removeprefix("sha256:")
        folder.mkdir(parents=True, exist_ok=True)
        text = manifest.model_dump_json(indent=2) + "\n"
        path = folder / FILE
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            handle, fresh = tempfile.mkstemp(dir=folder, prefix=FILE)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                Path(fresh).replace(path)
            except BaseException:
                Path(fresh).unlink(missing_ok=True)
                raise
        return cls(folder, manifest)

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read the bundle in *folder*. Raises ``PackagingError`` when it or one of its layers is gone or damaged."""
        path = folder / FILE
        again = "run `stageway package` again"
        try:
            text = path.read_text(encoding="utf-8")
            if json.loads(text).get("format", 0) > FORMAT:
                raise ConfigError(f"{path}: is from a newer Stageway; upgrade this one")
            bundle = cls(folder, Manifest.model_validate_json(text))
        except FileNotFoundError as error:
            raise PackagingError(f"{path}: no such bundle; {again}") from error
        except (OSError, ValueError, AttributeError, ValidationError) as error:
            raise PackagingError(f"{path}: is damaged; {again}") from error
        for layer in bundle.manifest.layers:
            if not bundle.content(layer.kind).is_dir():
                raise PackagingError(f"{bundle.content(layer.kind)}: the {layer.kind} layer is gone; {again}")
        return bundle

    def content(self, kind: str) -> Path:
        """Return the folder with the files of the layer of *kind*; nobody may write there."""
        name = self.manifest.layer(kind).digest.removeprefix("sha256:")
        return self.cache / "layers" / name / CONTENT

    def unpack(self, app: Path) -> Path:
        """Make the app root in the folder *app*: models as links into their layers, sources as copies.

        It appears at once and whole. An app root of this bundle that is already there is left as it is.
        """
        mark = app / OURS / "image"
        if app.exists():
            if mark.is_file() and mark.read_text(encoding="utf-8") == self.digest:
                return app
            raise PackagingError(f"{app}: is not an app root of {self.label}; name a new folder")
        app.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=app.parent, prefix=f".{app.name}-"))
        try:
            self._lay_out(fresh)
            fresh.replace(app)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if isinstance(error, OSError) and mark.exists():
                return self.unpack(app)  # another process was first
            raise
        return app

    def _lay_out(self, app: Path) -> None:
        if any(layer.kind == "source" for layer in self.manifest.layers):
            shutil.copytree(self.content("source"), app, symlinks=True, copy_function=_copy, dirs_exist_ok=True)
        for index, model in enumerate(self.manifest.models):
            place = app / model.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self._model_content(index) / model.path)
        ours = app / OURS
        ours.mkdir()
        if self.manifest.accelerated:
            (ours / ACCELERATED).symlink_to(self.content(ACCELERATED))
        if self.manifest.contract is not None:
            (ours / "contract.json").write_text(json.dumps(self.manifest.contract), encoding="utf-8")
        (ours / "image").write_text(self.digest, encoding="utf-8")

    def _model_content(self, index: int) -> Path:
        layers = [layer for layer in self.manifest.layers if layer.kind == "model"]
        return self.cache / "layers" / layers[index].digest.removeprefix("sha256:") / CONTENT

    def acceleration(self) -> dict[str, Any] | None:
        """Return how the ONNX form that answers in the model's place was found to agree with it, if there is one."""
        if not self.manifest.accelerated:
            return None
        path = self.content(ACCELERATED) / "report.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PackagingError(f"{path}: is damaged; run `stageway package` again") from error
        return found

    @property
    def bytecode(self) -> Path:
        """Folder of the bytecode cache; layers hold none, and services of one dependency layer share it."""
        return self.cache / "pyc" / self.manifest.layer("dependencies").digest.removeprefix("sha256:")

    def python_command(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the interpreter's command line and the environment that finds exactly this bundle's packages.

        Raises ``PackagingError`` when the bundle was made for another Python or platform than this one.
        """
        made, here = (self.manifest.python, self.manifest.platform), (machine.python_version(), machine.platform_name())
        if made != here:
            raise PackagingError(
                f"the bundle of {self.label} was made for Python {made[0]} on {made[1]}, and this is Python {here[0]} "
                f"on {here[1]}; run `stageway package` again"
            )
        env = machine.environment()
        env |= {
            "PYTHONPATH": str(self.content("serving")),
            "PYTHONPYCACHEPREFIX": str(self.bytecode),
            "PYTHONUNBUFFERED": "1",
            "STAGEWAY_SITE": str(self.content("dependencies")),
        }
        return (machine.interpreter(), "-S", "-s", "-P"), env

    def launch(
        self,
        app: Path,
        *,
        uds: Path | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        control: Path | None = None,
        workers: int = 1,
        release: str,
        version: str | None = None,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> Launch:
        """Say how to start the server on the app root *app*, on the Unix socket *uds* or else on *host* and *port*.

        *version* is ``name:version`` for the reply headers; *env* and *arguments* are what a deployment sets beside the
        serve config.
        """
        command, ours = self.python_command()
        argv = [*command, "-m", "stageway.serving"]
        argv += ["--uds", str(uds)] if uds is not None else ["--host", host, "--port", str(port or 0)]
        argv += ["--workers", str(workers)]
        if control is not None:
            argv += ["--control", str(control)]
        manifest = self.manifest
        if manifest.entry_script is not None:
            argv += ["--entry-script", manifest.entry_script]
        else:
            argv += ["--framework", str(manifest.framework)]
        if manifest.contract is not None:
            argv += ["--contract", str(app / OURS / "contract.json")]
        if manifest.accelerated:
            argv += ["--accelerated", str(app / OURS / ACCELERATED)]
        if manifest.batching != "auto":
            argv += ["--batching", manifest.batching]
        if manifest.batch_rows != Manifest.model_fields["batch_rows"].default:
            argv += ["--batch-rows", str(manifest.batch_rows)]
        argv += ["--release", release, "--model-version", version or self.label, *arguments]
        ours |= {"AML_APP_ROOT": str(app), "AZUREML_MODEL_DIR": manifest.model_dir}
        if manifest.source_directory is not None:
            ours["AZUREML_SOURCE_DIRECTORY"] = manifest.source_directory
        wanted = {**manifest.environment_variables, **(env or {})}
        check_variables(wanted, "environment-variables")
        return Launch(tuple(argv), {**ours, **wanted}, app)


def check_variables(variables: Mapping[str, str], where: str) -> None:
    """Raise ``ConfigError`` when one of *variables* is set by the bundle itself, or could not be set at all."""
    for name, value in variables.items():
        if name in RESERVED:
            raise ConfigError(f"{where}.{name}: is set by Stageway; choose another name")
        if not name or "=" in name or "\0" in name + value:
            raise ConfigError(f"{where}.{name!r}: cannot be an environment variable; use letters, digits and '_'")


def _copy(source: str, target: str) -> None:
    """Copy one file for a service to own: writable, with a time stamp of now (bytecode is told stale by it)."""
    shutil.copyfile(source, target)
    executable = Path(source).stat().st_mode & 0o111
    Path(target).chmod(0o755 if executable else 0o644)
