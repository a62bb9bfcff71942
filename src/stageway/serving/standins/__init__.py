"""Stand-ins for the retired packages that v1 scripts import, for the names below and for no other.

They are found last: where a real package is installed it is used, name by name, so that ``azureml.core`` can be the
real one and ``azureml.contrib.services`` ours. Each file below this folder is loaded under the name it stands in for.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Sequence

HERE = Path(__file__).parent
NAMES = (
    "azureml",
    "azureml.contrib",
    "azureml.contrib.services",
    "azureml.contrib.services.aml_request",
    "azureml.contrib.services.aml_response",
    "azureml.core",
    "azureml.core.model",
    "azureml.monitoring",
    "azureml.train",
    "azureml.train.automl",
    "inference_schema",
    "inference_schema.parameter_types",
    "inference_schema.parameter_types.abstract_parameter_type",
    "inference_schema.parameter_types.json_schema",
    "inference_schema.parameter_types.numpy_parameter_type",
    "inference_schema.parameter_types.pandas_parameter_type",
    "inference_schema.parameter_types.spark_parameter_type",
    "inference_schema.parameter_types.standard_py_parameter_type",
    "inference_schema.schema_decorators",
    "inference_schema.schema_util",
)
MOVED = {"sklearn.externals.joblib": "joblib"}
"""Packages that went to another name; their modules are found below the old one too, as old pickles ask for them."""

PACKAGES = {
    "azureml.accel": "azureml-accel-models",
    "azureml.automl": "azureml-automl-core",
    "azureml.automl.runtime": "azureml-automl-runtime",
    "azureml.contrib.services": "azureml-contrib-services",
    "azureml.core": "azureml-core",
    "azureml.data": "azureml-core",
    "azureml.dataprep": "azureml-dataprep",
    "azureml.exceptions": "azureml-core",
    "azureml.explain": "azureml-explain-model",
    "azureml.interpret": "azureml-interpret",
    "azureml.monitoring": "azureml-monitoring",
    "azureml.pipeline": "azureml-pipeline",
    "azureml.telemetry": "azureml-telemetry",
    "azureml.train.automl": "azureml-train-automl-runtime",
    "azureml.train": "azureml-train-core",
    "azureml.training": "azureml-training-tabular",
}
"""Packages of v1 by the first of their modules that Python misses."""
WAY_OUT = (
    "; Stageway stands in for azureml.core, contrib.services, monitoring and train.automl as far as services need: "
    "add {} to the dependencies, or remove the import if it is only habit"
)


class Finder:
    """Finds the stand-ins; the last of ``sys.meta_path``, so it is asked only for what nobody else has."""

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        for old, new in MOVED.items():
            if name == old or name.startswith(old + "."):
                return ModuleSpec(name, _Moved(new + name[len(old) :]), is_package=True)
        if name not in NAMES:
            return None
        place = HERE.joinpath(*name.split("."))
        if place.is_dir():
            folders = [str(place)]
            return importlib.util.spec_from_file_location(
                name, place / "__init__.py", submodule_search_locations=folders
            )
        return importlib.util.spec_from_file_location(name, place.with_suffix(".py"))


class _Moved(Loader):
    """Imports the module of the new name, and leaves it under the old one as well."""

    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self._new)


def install() -> None:
    """Let the stand-ins be found from now on."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        finder: Any = Finder()
        sys.meta_path.append(finder)


def way_out(error: BaseException) -> str:
    """Return what to do about an import that failed since a stand-in has less than its package; else nothing.

    The message of *error* loses the place of our file, which is not where anybody could mend it.
    """
    name = getattr(error, "name", None) or ""
    if not isinstance(error, ImportError) or name.partition(".")[0] != "azureml":
        return ""
    place = " ({})".format(error.path)
    if error.path and HERE in Path(error.path).parents and error.msg.endswith(place):
        error.msg = error.msg[: -len(place)]
    found = [known for known in PACKAGES if (name + ".").startswith(known + ".")]
    package = PACKAGES[max(found, key=len)] if found else "the package that has it"
    return WAY_OUT.format(package)
