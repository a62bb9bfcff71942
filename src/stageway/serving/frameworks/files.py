"""Which file below the model's folder is the model, and what is said when it cannot be read."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path
from typing import Any, Callable

from stageway.serving.scorer import StartError, log_traceback, said

PICKLES = (".pkl", ".pickle", ".joblib", ".sav")
SKOPS = ".skops"
TRUSTED = "SKOPS_TRUSTED_TYPES"
HARMLESS = ("collections.OrderedDict", "numpy.dtype")
BARRED = {"_build_utils", "_testing", "conftest", "datasets", "discovery", "estimator_checks", "externals", "tests"}
"""Modules of a package that models are not made of; what is in them runs commands, opens files or loads others."""
FUNCTIONS = ("sklearn.cluster.", "sklearn.feature_selection.", "sklearn.metrics.", "sklearn.preprocessing.")
"""Where the functions come from that models are given, such as what ``SelectKBest`` scores with; none of them opens."""
BESIDE = {"input_example.json", "serving_input_example.json"}
"""What MLflow writes next to a model, and could be one by its ending."""


def folder() -> Path:
    """Return the folder of the one model that is served."""
    return Path(os.environ.get("AZUREML_MODEL_DIR", "azureml-models"))


def one_file(endings: "tuple[str, ...]") -> Path:
    """Return the one model file below the model's folder: by its ending, else the only file there is."""
    top = folder()
    files = sorted(path for path in top.rglob("*") if path.is_file() and path.name not in BESIDE)
    return _one(top, [path for path in files if path.suffix.lower() in endings] or files, "file")


def one_folder(mark: str) -> Path:
    """Return the one folder, the model's own or below it, that holds a file called *mark*."""
    top = folder()
    return _one(top, sorted(path.parent for path in top.rglob(mark) if path.is_file()), "folder with " + mark)


def package(name: str, wanted: str) -> Any:
    """Import *name*; where it is missing say that *wanted* belongs into the dependencies."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        sentence = "the package {} is missing ({}); add it to the dependencies and lock them again"
        raise StartError(sentence.format(wanted, error)) from error


def read(path: Path, reader: "Callable[[Path], Any]") -> Any:
    """Return what *reader* makes of *path*; the log has the traceback where it tells more."""
    try:
        return reader(path)
    except StartError:
        raise
    except BaseException as error:
        if not _of_pickle(error):
            log_traceback(error)
        raise StartError("model {} cannot be read: {}".format(path, said(error))) from error


def _of_pickle(error: BaseException) -> bool:
    """Tell whether the module ``pickle`` raised *error* itself: its trace says nothing about the model's own code."""
    inner = error.__traceback__
    while inner is not None and inner.tb_next is not None:
        inner = inner.tb_next
    return inner is not None and inner.tb_frame.f_globals.get("__name__") == "pickle"


def threads() -> int:
    """Return how many threads one prediction may use: one, unless the service's owner says otherwise."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) else 1


def unpickled(path: Path) -> Any:
    """Return the object in a file that joblib or pickle wrote."""
    return read(path, package("joblib", "scikit-learn").load)


def from_skops(path: Path, own: str = "sklearn") -> Any:
    """Load a file of skops, which makes only types that it, the package *own* or the service's owner vouches for."""
    io = package("skops.io", "skops")
    trusted = [name.strip() for name in os.environ.get(TRUSTED, "").split(",") if name.strip()]
    unknown = read(path, lambda path: io.get_untrusted_types(file=path))
    strangers = [name for name in unknown if name not in (*trusted, *HARMLESS) and not _vouched(name, own)]
    if strangers:
        sentence = "model {} holds types that skops does not trust: {}; if you do, name them in the variable {}"
        raise StartError(sentence.format(path, ", ".join(strangers), TRUSTED))
    return read(path, lambda path: io.load(path, trusted=unknown))


def _vouched(name: str, own: str) -> bool:
    """Tell whether *name* is a class of the package *own* or a harmless function of it, and not one that it imports."""
    module, _, called = name.rpartition(".")
    if module.partition(".")[0] != own or not BARRED.isdisjoint(module.split(".")):
        return False
    try:
        found = getattr(importlib.import_module(module), called)
    except (ImportError, AttributeError, ValueError):
        return False
    home = str(getattr(found, "__module__", None))
    if not home.startswith(own + ".") or not BARRED.isdisjoint(home.split(".")):
        return False
    return inspect.isclass(found) or (callable(found) and home.startswith(FUNCTIONS))


def _one(top: Path, found: "list[Path]", what: str) -> Path:
    if len(found) == 1:
        return found[0]
    listed = ", ".join(str(path.relative_to(top)) for path in found[:5]) or "none"
    sentence = "without an entry script one model {} is served; {} holds {}: {}"
    raise StartError(sentence.format(what, top, len(found), listed))
