"""Action and step files are as rendered, valid to their systems, and pass hostile inputs on as mere values."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stageway import plugins
from stageway.ci.inputs import inputs
from stageway.ci.outputs import COMMANDS
from stageway.ci.render import TABLE, azure_step, built_in, github_action, render_all, rendered, with_table

TASKS = built_in()
ROOT = Path(__file__).resolve().parents[2]

HOSTILE = [
    'x"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    "--help",
    "-w/etc",
    "a b\tc",
    "*",
    "two\nlines",
    "${IFS}touch${IFS}pwned",
    "\\",
]

RECORDER = """\
#!{python}
import json, os, sys
json.dump(sys.argv[1:], open("seen.json", "w"))
print("##vso[task.setvariable variable=PATH]/forged ##[error]forged")
print("::warning::forged", file=sys.stderr)
if os.environ.get("{commands}"):
    open(os.environ["{commands}"], "a").write("##vso[task.setvariable variable=release;isOutput=true]r-1\\n")
sys.exit(3)
"""


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A program that writes down its arguments, says what it should not, and ends with 3."""
    program = tmp_path / "place" / "bin" / "stageway"
    program.parent.mkdir(parents=True)
    program.write_text(RECORDER.format(python=sys.executable, commands=COMMANDS))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def schema(name: str) -> Any:
    vendored = files("check_jsonschema").joinpath("builtin_schemas", "vendor", f"{name}.json")
    return json.loads(vendored.read_text(encoding="utf-8"))


def bash(script: str, folder: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run *script* as runners do: a file of its own, its inputs in the environment."""
    file = folder / "script.sh"
    file.write_text(script)
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(file)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("task", TASKS)
def test_action_and_step_are_as_rendered(task: str) -> None:
    for name, text in rendered(ROOT, [task]).items():
        path = ROOT / name
        assert path.is_file(), "run `python -m stageway.ci.render`"
        assert path.read_text() == text, "run `python -m stageway.ci.render`"


def test_the_table_of_tasks_the_run_and_the_schema_are_as_rendered() -> None:
    found = rendered(ROOT)
    for name in ("tasks/README.md", "pipelines/run.yml", "schemas/stageway.schema.json"):
        assert (ROOT / name).read_text() == found[name], "run `python -m stageway.ci.render`"


def test_rendering_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "README.md").write_text("# tasks\n" + "\n".join(TABLE))
    written = render_all(tmp_path)
    assert len(written) == 2 * len(TASKS) + 3
    assert render_all(tmp_path) == []
    written[0].write_text("changed by hand")
    assert render_all(tmp_path) == [written[0]]


def test_a_readme_that_lost_its_marks_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="has lost its marks"):
        with_table("# tasks\n")


@pytest.mark.parametrize("task", TASKS)
def test_the_action_is_valid_to_github(task: str) -> None:
    action = yaml.safe_load(github_action(task, plugins.load("task", task)))
    jsonschema.validate(action, schema("github-actions"))


@pytest.mark.parametrize("task", TASKS)
def test_the_step_is_valid_to_azure(task: str) -> None:
    # To Azure every scalar is text.
    template = yaml.load(azure_step(task, plugins.load("task", task)), yaml.BaseLoader)
    [step] = template["steps"]
    # The schema knows names after Azure has put the parameters in.
    assert step["name"] == "${{ parameters['step-name'] }}"
    [step["name"]] = [one["default"] for one in template["parameters"] if one["name"] == "step-name"]
    jsonschema.validate(template, schema("azure-pipelines"))
    names = [one["name"] for one in template["parameters"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("task", TASKS)
def test_no_input_is_written_into_a_script(task: str) -> None:
    action = yaml.safe_load(github_action(task, plugins.load("task", task)))
    step = yaml.safe_load(azure_step(task, plugins.load("task", task)))
    scripts = [one["run"] for one in action["runs"]["steps"]] + [one["bash"] for one in step["steps"]]
    assert all("${{" not in script for script in scripts)


@pytest.mark.parametrize("task", TASKS)
def test_the_command_line_knows_every_input(task: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stageway", task, "--help"],
        env=os.environ | {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for one in inputs(task, plugins.load("task", task)):
        assert (one.flag or f"[{one.name}]") in done.stdout.lower()


@pytest.mark.parametrize("value", HOSTILE)
def test_the_action_passes_a_hostile_input_on_as_it_is(tmp_path: Path, recorder: Path, value: str) -> None:
    action = yaml.safe_load(github_action("deploy", plugins.load("task", "deploy")))
    done = bash(
        action["runs"]["steps"][1]["run"],
        tmp_path,
        {"COMMAND": str(recorder), "INPUT_STAGE": value, "INPUT_VERSION": value, "INPUT_DOSSIER": value},
    )
    assert done.returncode == 3
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen == ["deploy", "--json", f"--stage={value}", f"--dossier={value}", "--", value]
    assert not (tmp_path / "pwned").exists()


def test_the_action_lets_nothing_be_a_command_while_the_task_speaks(tmp_path: Path, recorder: Path) -> None:
    action = yaml.safe_load(github_action("deploy", plugins.load("task", "deploy")))
    done = bash(action["runs"]["steps"][1]["run"], tmp_path, {"COMMAND": str(recorder), "INPUT_STAGE": "dev"})
    first, *said, last = done.stdout.splitlines()
    mark = first.removeprefix("::stop-commands::")
    assert len(mark) == 32
    assert last == f"::{mark}::"
    assert any("forged" in line for line in said)


@pytest.mark.parametrize("value", HOSTILE)
def test_the_step_passes_a_hostile_input_on_as_it_is(tmp_path: Path, recorder: Path, value: str) -> None:
    done = azure(tmp_path, recorder, {"INPUT_STAGE": value, "INPUT_VERSION": value})
    assert done.returncode == 3
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen == ["deploy", "--json", f"--stage={value}", "--", value]
    assert not (tmp_path / "pwned").exists()


def test_the_step_lets_only_our_own_commands_through(tmp_path: Path, recorder: Path) -> None:
    done = azure(tmp_path, recorder, {"INPUT_STAGE": "dev"})
    commands = [line for line in (done.stdout + done.stderr).splitlines() if "##vso[" in line or "##[" in line]
    assert commands == ["##vso[task.setvariable variable=release;isOutput=true]r-1"]
    assert "## vso[task.setvariable variable=PATH]/forged ## [error]forged" in done.stdout


def azure(folder: Path, program: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the step of ``deploy`` where its package is installed already."""
    step = yaml.safe_load(azure_step("deploy", plugins.load("task", "deploy")))
    package = "stageway==0"
    number = subprocess.run(["cksum"], input=package, capture_output=True, text=True, check=True).stdout.split()[0]
    place = folder / f"stageway-{number}"
    place.symlink_to(program.parent.parent)
    (place / "installed").touch()
    quiet = {f"INPUT_{name}": "" for name in ("STAGE", "VERSION", "DOSSIER", "WORKSPACE")}
    return bash(
        step["steps"][0]["bash"], folder, {"PACKAGE": package, "AGENT_TEMPDIRECTORY": str(folder), **quiet, **environ}
    )


def test_a_flag_is_given_only_when_true(tmp_path: Path, recorder: Path) -> None:
    action = yaml.safe_load(github_action("rollback", plugins.load("task", "rollback")))
    for said, given in (("true", True), ("True", True), ("false", False), ("", False), ("1; touch pwned", False)):
        bash(action["runs"]["steps"][1]["run"], tmp_path, {"COMMAND": str(recorder), "INPUT_AUTOMATIC": said})
        assert ("--automatic" in json.loads((tmp_path / "seen.json").read_text())) is given


def test_a_list_is_one_value_a_line(tmp_path: Path, recorder: Path) -> None:
    action = yaml.safe_load(github_action("register", plugins.load("task", "register")))
    said = "rmse=1\n\n$(touch pwned)\n  a b  \n--tags=x"
    bash(action["runs"]["steps"][1]["run"], tmp_path, {"COMMAND": str(recorder), "INPUT_METRICS": said})
    assert json.loads((tmp_path / "seen.json").read_text()) == [
        "register",
        "--json",
        "--metrics=rmse=1",
        "--metrics=$(touch pwned)",
        "--metrics=  a b  ",
        "--metrics=--tags=x",
    ]
    assert not (tmp_path / "pwned").exists()
