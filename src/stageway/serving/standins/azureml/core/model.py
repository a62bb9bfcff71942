"""Stands in for ``azureml.core.model``: where the files of a model lie, in the service and at the desk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional, Union

MODELS = "azureml-models"


class _Known(type):
    """Says which package has the rest of ``Model``."""

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(
            "Model.{} is not there in a service, which has Model.get_model_path alone; "
            "add azureml-core to the dependencies".format(name)
        )


class Model(metaclass=_Known):
    """A registered model, of which a service needs no more than the path of its files."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        raise NotImplementedError(
            "Model(...) asks a workspace, which a service does not; use Model.get_model_path(name), "
            "or add azureml-core to the dependencies"
        )

    @staticmethod
    def get_model_path(model_name: str, version: "Optional[Union[int, str]]" = None, _workspace: Any = None) -> str:
        """Return the path of the one file or folder that *model_name* was registered with.

        Without a *version* it is the highest one. ``FileNotFoundError`` names both places that were looked into.
        """
        tried = []
        for place in _places(model_name):
            folder = _version_folder(place, version)
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            if len(entries) == 1:
                return str(entries[0])
            tried.append("{} holds {}".format(folder, "nothing" if not entries else "{} entries".format(len(entries))))
        if version is None and Path(model_name).exists():
            return model_name
        raise FileNotFoundError(
            "model {!r} is not found: {}, and there is no {} in {}".format(
                model_name, " and ".join(tried), model_name, Path.cwd()
            )
        )


def _places(name: str) -> "list[Path]":
    """Return the folders that versions of *name* may be in: below the app root, and as AZUREML_MODEL_DIR says."""
    found = [Path(MODELS, name)]
    given = os.environ.get("AZUREML_MODEL_DIR", "")
    if given:
        path = Path(given)
        # The folder of the one model, <name>/<version>, or the folder of all.
        place = path.parent if path.name.isdigit() and path.parent.name == name else path / name
        if place.absolute() != found[0].absolute():
            found.append(place)
    return found


def _version_folder(place: Path, version: "Optional[Union[int, str]]") -> Path:
    if version is not None:
        return place / str(version)
    numbers = [int(one.name) for one in place.iterdir() if one.name.isdigit()] if place.is_dir() else []
    return place / str(max(numbers)) if numbers else place
