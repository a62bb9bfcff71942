"""A task's inputs, read from its signature: the keyword-only parameters with their ``Annotated`` help."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from stageway.errors import ConfigError

Kind = Literal["text", "number", "flag", "list"]

POSITIONAL = {("register", "path")}
"""Inputs that the command line takes as an argument, without a flag."""

FROM_NOTHING = ("register", "rollback")
"""Tasks that start from nothing; the others start from a version or from a dossier."""


@dataclass(frozen=True)
class Input:
    """One input of a task: *parameter* of type *hint* in Python, *name* in CI files, *flag* on the command line.

    *default* is ``None`` where there is none; *flag* is empty for an argument.
    """

    name: str
    flag: str
    kind: Kind
    help: str
    required: bool
    default: str | None
    parameter: str = field(default="", compare=False)
    hint: Any = field(default=None, compare=False)

    @property
    def help_in_ci(self) -> str:
        """The help where a list is written as text."""
        return self.help + ("; one a line" if self.kind == "list" else "")


def inputs(task: str, function: Callable[..., Any]) -> list[Input]:
    """Return the inputs of *function*, in the order of its signature. Raises ``ConfigError`` for what CI cannot say."""
    hints = typing.get_type_hints(function, include_extras=True)
    found: list[Input] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        name = parameter.name.rstrip("_").replace("_", "-")
        hint, text = _unwrap(hints[parameter.name])
        if not text:
            raise ConfigError(f"task {task}: the input {parameter.name} has no help; write Annotated[…, 'help']")
        kind = _kind(task, parameter.name, hint)
        flag = "" if (task, parameter.name) in POSITIONAL else f"--{name}"
        required = parameter.default is inspect.Parameter.empty
        default = None if required or parameter.default is None else _text(parameter.default)
        found.append(Input(name, flag, kind, text, required, default, parameter.name, hint))
    return found


def _unwrap(hint: Any) -> tuple[Any, str]:
    if typing.get_origin(hint) is Annotated:
        hint, *extras = typing.get_args(hint)
        return hint, next((extra for extra in extras if isinstance(extra, str)), "")
    return hint, ""


def _kind(task: str, name: str, hint: Any) -> Kind:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        several = [one for one in typing.get_args(hint) if one is not type(None)]
        hint = several[0] if len(several) == 1 else hint
    if hint is bool:
        return "flag"
    if hint in (int, float):
        return "number"
    if hint == list[str]:
        return "list"
    if hint in (str, Path) or typing.get_origin(hint) is Literal:
        return "text"
    raise ConfigError(f"task {task}: the input {name} is a {hint}; use str, int, float, bool, Path or list[str]")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
