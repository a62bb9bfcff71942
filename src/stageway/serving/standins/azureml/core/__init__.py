"""Stands in for ``azureml.core``: ``Model``, and names that scripts import by habit, which fail when they are used."""

from __future__ import annotations

from typing import Any

from .model import Model as Model

VERSION = "1.60.0+stageway"
__version__ = VERSION


class _Absent(type):
    """Says of a class which package has it, once something is asked of it."""

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(_sentence("{}.{}".format(cls.__name__, name)))

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError(_sentence("{}(...)".format(cls.__name__)))


def _sentence(used: str) -> str:
    return "{} asks a workspace, which a service does not; add azureml-core to the dependencies".format(used)


ComputeTarget = _Absent("ComputeTarget", (), {})
Dataset = _Absent("Dataset", (), {})
Datastore = _Absent("Datastore", (), {})
Environment = _Absent("Environment", (), {})
Experiment = _Absent("Experiment", (), {})
Keyvault = _Absent("Keyvault", (), {})
Run = _Absent("Run", (), {})
ScriptRunConfig = _Absent("ScriptRunConfig", (), {})
Webservice = _Absent("Webservice", (), {})
Workspace = _Absent("Workspace", (), {})
