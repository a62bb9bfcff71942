"""Stands in for ``azureml.monitoring``: ``ModelDataCollector``, loaded when a script asks for it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "ModelDataCollector":
        raise AttributeError("module 'azureml.monitoring' has no attribute {!r}".format(name))
    from stageway.serving.collection import ModelDataCollector

    return ModelDataCollector
