"""Hand a task's outputs to the CI system around us, in its own format.

Values come from registries and services, so none of them may become a command: what would end a line is escaped or
fenced with a delimiter that nobody can guess.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from stageway.errors import ConfigError

OUTPUTS = {
    "model": "Name of the model.",
    "version": "Version of the model.",
    "release": "Id of the release, once it is packaged.",
    "stage": "Stage that the task worked on.",
    "endpoint": "Address of that stage's service, once it has one.",
    "dossier": "Path of the dossier.",
}
"""All outputs that tasks may set, with their help text; action files declare them."""

COMMANDS = "STAGEWAY_AZURE_COMMANDS"
"""Names a file for Azure's commands, where standard output is filtered as ``tasks/*/step.yml`` does."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def emit(outputs: Mapping[str, str], environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> None:
    """Set *outputs* as step outputs of GitHub Actions or Azure Pipelines; elsewhere do nothing.

    Azure's commands are printed: to *stream*, so that standard output may be all JSON, else to standard output.
    """
    for name in outputs:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of an output")
    if environ.get("GITHUB_OUTPUT"):
        _append("GITHUB_OUTPUT", environ["GITHUB_OUTPUT"], "".join(_github(*item) for item in outputs.items()))
    if environ.get("GITHUB_STEP_SUMMARY") and outputs:
        _append("GITHUB_STEP_SUMMARY", environ["GITHUB_STEP_SUMMARY"], summary(outputs))
    if environ.get("TF_BUILD", "").lower() == "true":
        text = "".join(_azure(*item) for item in outputs.items())
        if environ.get(COMMANDS):
            _append(COMMANDS, environ[COMMANDS], text)
        else:
            print(text, end="", flush=True, file=stream)


def summary(outputs: Mapping[str, str]) -> str:
    """Return a Markdown table of *outputs* in which no value is Markdown or HTML."""
    rows = [f"| {name} | {_literal(value)} |\n" for name, value in outputs.items()]
    return "\n| output | value |\n| --- | --- |\n" + "".join(rows)


def _github(name: str, value: str) -> str:
    if not re.search(r"[\r\n]", value):
        return f"{name}={value}\n"
    fence = f"end-{secrets.token_hex(16)}"
    return f"{name}<<{fence}\n{value}\n{fence}\n"


def _azure(name: str, value: str) -> str:
    # The agent's own decoding: only these three can end a line or be read as an escape.
    escaped = value.replace("%", "%AZP25").replace("\r", "%0D").replace("\n", "%0A")
    return f"##vso[task.setvariable variable={name};isOutput=true]{escaped}\n"


def _literal(value: str) -> str:
    return re.sub(r"[^\w .,:/=+-]", lambda found: f"&#{ord(found[0])};", value.replace("\r", " ").replace("\n", " "))


def _append(setting: str, path: str, text: str) -> None:
    try:
        with Path(path).open("a", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{setting}: {path!r} cannot be written: {error}; the CI system should name a file"
        ) from error
