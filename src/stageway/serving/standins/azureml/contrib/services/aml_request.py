"""Stands in for ``azureml.contrib.services.aml_request``: the request itself, for scripts that ask for it."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from stageway.serving.raw import MARK, Request

Run = TypeVar("Run", bound=Callable[..., Any])


class AMLRequest(Request):
    """The request that ``run`` gets, with what scripts use of Flask's."""


def rawhttp(run: Run) -> Run:
    """Mark *run* as one that takes the request itself."""
    setattr(run, MARK, True)
    return run
