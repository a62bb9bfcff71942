"""Render what can be derived: each task's action and step file, the table of tasks, the copy of the schema.

``python -m stageway.ci.render`` writes them into the checkout; a test fails when a file is not as rendered.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from stageway import __version__, catalog, plugins
from stageway.ci.inputs import FROM_NOTHING, Input, inputs
from stageway.ci.outputs import COMMANDS, OUTPUTS
from stageway.config.schema import json_schema

DISTRIBUTION = "stageway"
TABLE = ("<!-- rendered: table -->", "<!-- end of table -->")

GITHUB_INSTALL = """\
root="$(cd "$GITHUB_ACTION_PATH/../.." && pwd)"
place="$RUNNER_TEMP/stageway-$(basename "$root")"
if [ ! -e "$place/installed" ]; then
  python3 -m venv "$place"
  "$place/bin/python" -m pip install --quiet "$root"
  touch "$place/installed"
fi
echo "command=$place/bin/stageway" >> "$GITHUB_OUTPUT"
"""

GITHUB_RUN = """\
{arguments}
# What a model or a service says may look like a command; between these two marks the runner obeys none.
mark="$(python3 -c 'import secrets; print(secrets.token_hex(16))')"
echo "::stop-commands::$mark"
code=0
"$COMMAND" "${{arguments[@]}}" || code=$?
echo "::$mark::"
exit "$code"
"""

AZURE_RUN = """\
set -eu
place="$AGENT_TEMPDIRECTORY/stageway-$(printf '%s' "$PACKAGE" | cksum | cut -d' ' -f1)"
if [ ! -e "$place/installed" ]; then
  python3 -m venv "$place"
  "$place/bin/python" -m pip install --quiet "$PACKAGE"
  touch "$place/installed"
fi
{arguments}
# What a model or a service says may look like a command; the agent obeys only those in our own file.
{commands}="$(mktemp)"
export {commands}
set +e
"$place/bin/stageway" "${{arguments[@]}}" 2>&1 | sed -e 's/##vso\\[/## vso[/g' -e 's/##\\[/## [/g'
code="${{PIPESTATUS[0]}}"
cat "${commands}"
rm -f "${commands}"
exit "$code"
"""


def rendered(root: Path, tasks: list[str] | None = None) -> dict[str, str]:
    """Return the text of every rendered file by its path in the checkout *root*; of *tasks* only, where given."""
    found: dict[str, str] = {}
    for name in tasks if tasks is not None else built_in():
        function = plugins.load("task", name)
        found[f"tasks/{name}/action.yml"] = github_action(name, function)
        found[f"tasks/{name}/step.yml"] = azure_step(name, function)
    if tasks is None:
        readme = root / "tasks" / "README.md"
        found["tasks/README.md"] = with_table(readme.read_text(encoding="utf-8"))
        schema = json_schema(only=DISTRIBUTION)
        found["pipelines/run.yml"] = azure_run()
        found["schemas/stageway.schema.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return found


def render_all(root: Path) -> list[Path]:
    """Write what is not as rendered; return those files."""
    written: list[Path] = []
    for name, text in rendered(root).items():
        path = root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
        written.append(path)
    return written


def built_in() -> list[str]:
    """Return the names of the tasks that this distribution brings."""
    points = plugins.found("task").items()
    return [name for name, point in points if point.dist is not None and point.dist.name == DISTRIBUTION]


def github_action(name: str, task: Callable[..., Any]) -> str:
    """Return ``action.yml``: a composite action that installs its own folder and runs the task."""
    taken = [*inputs(name, task), *_common(name)]
    action = {
        "name": f"stageway {name}",
        "description": _first_line(task),
        "inputs": {
            one.name: {"description": one.help_in_ci, "required": one.required, "default": one.default or ""}
            if not one.required
            else {"description": one.help_in_ci, "required": True}
            for one in taken
        },
        "outputs": {
            key: {"description": text, "value": f"${{{{ steps.task.outputs.{key} }}}}"} for key, text in OUTPUTS.items()
        },
        "runs": {
            "using": "composite",
            "steps": [
                {"name": "Install Stageway", "id": "install", "shell": "bash", "run": GITHUB_INSTALL},
                {
                    "name": f"stageway {name}",
                    "id": "task",
                    "shell": "bash",
                    "env": {"COMMAND": "${{ steps.install.outputs.command }}"}
                    | {_variable(one): f"${{{{ inputs.{one.name} }}}}" for one in taken},
                    "run": GITHUB_RUN.format(arguments=_arguments(name, taken)),
                },
            ],
        },
    }
    return _head(task.__module__) + _yaml(action)


def azure_step(name: str, task: Callable[..., Any]) -> str:
    """Return ``step.yml``: a step template; its parameter ``step-name`` is how later steps name its outputs."""
    return _head(task.__module__) + _yaml(_azure(name, [*inputs(name, task), *_common(name)]))


def azure_run() -> str:
    """Return ``pipelines/run.yml``: a step template that takes one version through the whole pipeline."""
    taken = [
        Input("workspace", "--workspace", "text", "Folder of stageway.yml.", False, "."),
        Input("version", "", "text", "NAME, NAME:VERSION or NAME@ALIAS.", True, None),
    ]
    return _head("stageway.ci.render") + _yaml(_azure("run", taken))


def _azure(name: str, taken: list[Input]) -> dict[str, Any]:
    own: list[dict[str, Any]] = [_parameter(one) for one in taken]
    own.append({"name": "step-name", "type": "string", "default": "stageway_" + name.replace("-", "_")})
    own.append({"name": "package", "type": "string", "default": f"stageway=={__version__}"})
    own.append({"name": "env", "type": "object", "default": {}})
    step = {
        "bash": AZURE_RUN.format(arguments=_arguments(name, taken), commands=COMMANDS),
        "name": "${{ parameters['step-name'] }}",
        "displayName": f"stageway {name}",
        # Azure hands no secret variable to a step by itself: the caller says which.
        "env": {"${{ insert }}": "${{ parameters.env }}", "PACKAGE": "${{ parameters.package }}"}
        | {_variable(one): f"${{{{ parameters['{one.name}'] }}}}" for one in taken},
    }
    return {"parameters": own, "steps": [step]}


def with_table(readme: str) -> str:
    """Return *readme* with the current table of tasks between its two marks."""
    before, found, rest = readme.partition(TABLE[0])
    _, closed, after = rest.partition(TABLE[1])
    if not found or not closed:
        raise ValueError(f"tasks/README.md has lost its marks {TABLE[0]} and {TABLE[1]}")
    rows = ["| task | what it does | inputs | code | proof |", "| --- | --- | --- | --- | --- |"]
    for name in built_in():
        task = plugins.load("task", name)
        file = name.replace("-", "_") + ".py"
        taken = ", ".join(f"`{one.name}`" + ("" if one.required else "?") for one in inputs(name, task))
        code = f"[{file}](../src/stageway/tasks/{file})"
        proof = f"[test_{file}](../tests/tasks/test_{file})"
        rows.append(f"| [{name}]({name}/) | {_first_line(task)} | {taken} | {code} | {proof} |")
    return f"{before}{TABLE[0]}\n" + "\n".join(rows) + f"\n{TABLE[1]}{after}"


def _common(name: str) -> list[Input]:
    """Return the inputs that the command line adds to every task."""
    version = Input("version", "", "text", "NAME, NAME:VERSION or NAME@ALIAS, when there is no dossier.", False, None)
    return [
        *([] if name in FROM_NOTHING else [version]),
        Input(
            "dossier",
            "--dossier",
            "text",
            "File that travels between tasks: read, grown, written.",
            False,
            "dossier.json",
        ),
        Input("workspace", "--workspace", "text", "Folder of stageway.yml.", False, "."),
    ]


def _arguments(name: str, taken: list[Input]) -> str:
    """Return the lines of bash that make the arguments; a value is never part of the script, nor taken for a flag."""
    lines = [f"arguments=({name} --json)"]
    for one in (one for one in taken if one.flag):
        variable = _variable(one)
        if one.kind == "list":
            add = f'if [ -n "$line" ]; then arguments+=("{one.flag}=$line"); fi'
            lines.append(f'while IFS= read -r line; do {add}; done <<< "${variable}"')
        elif one.kind == "flag":
            lines.append(f'case "${variable}" in [Tt]rue) arguments+=({one.flag}) ;; esac')
        else:
            lines.append(f'if [ -n "${variable}" ]; then arguments+=("{one.flag}=${variable}"); fi')
    for one in (one for one in taken if not one.flag):
        lines.append(f'if [ -n "${_variable(one)}" ]; then arguments+=(-- "${_variable(one)}"); fi')
    return "\n".join(lines)


def _parameter(one: Input) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": one.name, "type": "boolean" if one.kind == "flag" else "string"}
    if one.kind == "flag":
        parameter["default"] = one.default == "true"
    elif not one.required:
        parameter["default"] = one.default or ""
    return parameter


def _variable(one: Input) -> str:
    return "INPUT_" + one.name.upper().replace("-", "_")


def _first_line(task: Callable[..., Any]) -> str:
    return (inspect.getdoc(task) or "").partition("\n")[0]


def _head(module: str) -> str:
    return f"# Rendered from src/{module.replace('.', '/')}.py by `python -m stageway.ci.render`; change it there.\n"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


if __name__ == "__main__":
    for path in render_all(catalog.root()):
        print(path)
