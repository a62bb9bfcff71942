"""Find the file of an entry script and import it, by its path, as v1's driver did."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from stageway.serving import standins
from stageway.serving.scorer import StartError, log_traceback, said


def find(path: Path) -> Path:
    """Return where the script is: as given, else below v1's app root, in the source directory or beside it."""
    root, source = _root(), os.environ.get("AZUREML_SOURCE_DIRECTORY", "")
    places = [path, *([root / source / path] if source else []), root / path]
    return next((place for place in places if place.is_file()), path)


def _root() -> Path:
    return Path(os.environ.get("AML_APP_ROOT", "."))


def load(path: Path) -> ModuleType:
    """Import the script under its own name, with its folder on the import path."""
    if not path.is_file():
        raise StartError("entry script {}: no such file in {}".format(path, Path.cwd()))
    source = os.environ.get("AZUREML_SOURCE_DIRECTORY", "")
    for folder in [*([_root() / source] if source else []), path.parent]:
        if str(folder.resolve()) not in sys.path:
            sys.path.insert(0, str(folder.resolve()))
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else "entry_" + path.stem
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise StartError("entry script {}: not a Python file; its name ends in .py".format(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        way_out = standins.way_out(error)
        log_traceback(error)
        sentence = "{} does not import: {}{}".format(path.name, said(error), way_out)
        raise StartError(sentence) from error
    return module
