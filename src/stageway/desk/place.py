"""The app root of a service at the desk: links to the developer's own files, laid out as v1 had them in the image.

``azureml-models/<name>/<version>/…`` holds the models; a source directory keeps its name. A script's folder that nobody
called a source directory is both: the root, and below it under its own name, so that scripts for either find their
files. Links, so that an edit is seen by the next load; ``lay_out`` again takes in files that came and went.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from stageway.bundle import MODELS
from stageway.desk.choice import Choice, Chosen
from stageway.tasks.base import open_registry

LEFT_OUT = frozenset({".git", ".stageway", ".venv", "__pycache__", MODELS})


class Place:
    """One app root in the new folder *app*, for *choice*."""

    def __init__(self, choice: Choice, app: Path) -> None:
        self._choice, self.app = choice, app
        self._sources = {one.place.label: self._files(one) for one in choice.models}
        self.lay_out()

    @property
    def entry_script(self) -> str | None:
        """The script, relative to the app root."""
        script, directory = self._choice.script, self._choice.directory
        if script is None or directory is None:
            return None
        return str(Path(self._choice.inside, os.path.relpath(script, directory)))

    @property
    def variables(self) -> dict[str, str]:
        """What v1's container sets, its model folder relative to the app root, and what the project sets."""
        found = {"AML_APP_ROOT": str(self.app)}
        models = self._choice.models
        if models:
            found["AZUREML_MODEL_DIR"] = models[0].place.path if len(models) == 1 else MODELS
        if self._choice.inside:
            found["AZUREML_SOURCE_DIRECTORY"] = self._choice.inside
        return {**self._choice.variables, **found}

    def lay_out(self) -> None:
        """Make the links as the files are now."""
        for chosen in self._choice.models:
            source, target = self._sources[chosen.place.label], self.app / chosen.place.path
            # A registered folder keeps its name below the version; the registry's files have it already.
            _mirror(source, target / source.name if chosen.path is not None and source.is_dir() else target)
            if len(self._choice.models) == 1 and chosen.path is not None and source.name != chosen.place.name:
                # v1 named a model that was registered without a name as its file, with its ending.
                _mirror(source, self.app / MODELS / source.name / chosen.place.version)
        wanted = self._links()
        for path in self.app.iterdir():
            # What is no link was put here by the script itself.
            if path.is_symlink() and path.name not in wanted:
                path.unlink()
        for name, path in wanted.items():
            if not os.path.lexists(self.app / name):
                (self.app / name).symlink_to(path)

    def _links(self) -> dict[str, Path]:
        choice = self._choice
        if choice.script is None or choice.directory is None:
            return {}
        directory = _there(choice.directory)
        if choice.inside:
            return {choice.inside: directory}
        first = Path(os.path.relpath(choice.script, directory)).parts[0]
        if choice.alone:
            return {first: directory / first}
        named = {directory.name: directory} if directory.name and directory.name not in LEFT_OUT else {}
        return named | {one.name: one for one in directory.iterdir() if one.name not in LEFT_OUT}

    def _files(self, chosen: Chosen) -> Path:
        """Return the folder or file with the model's files; a registry's are kept by digest in the cache."""
        if chosen.path is not None:
            return _there(chosen.path)
        workspace, model = self._choice.workspace, chosen.model
        assert workspace is not None
        assert model is not None
        kept = workspace.cache / "desk" / (model.digest.removeprefix("sha256:") or model.id.key.replace("/", "-"))
        if not kept.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                fetched = open_registry(workspace).fetch(model, Path(scratch) / "files")
                try:
                    fetched.replace(kept)
                except OSError:
                    if not kept.is_dir():  # else another process was first
                        raise
        return kept


def _there(path: Path) -> Path:
    """Return *path* from the root, with a last name of its own; links stay, since what is linked has their names."""
    return Path(os.path.normpath(path.absolute()))


def _mirror(source: Path, target: Path) -> None:
    """Make *target* real folders with a link for each file of *source*; a lone file is linked under its own name.

    Not one link to the whole: who searches the model's folder does not follow links to folders.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if source.is_file():
        (target / source.name).symlink_to(source)
        return
    for folder, _, files in os.walk(source, followlinks=True):
        inside = target / os.path.relpath(folder, source)
        inside.mkdir(exist_ok=True)
        for name in files:
            (inside / name).symlink_to(Path(folder) / name)
