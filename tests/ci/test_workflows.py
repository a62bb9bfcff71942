"""Workflows, triggers and pipelines of this repository are valid to the systems that read them, and careful."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / "triggers" / "github" / "watch.yml"]
AZURE = [ROOT / "triggers" / "azure-devops" / "watch.yml"]
BESIDE = Path(sys.executable).parent


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def program(called: str) -> str:
    """Return the path of a program that comes with the tests' packages."""
    found = shutil.which(called, path=os.pathsep.join([str(BESIDE), os.environ.get("PATH", "")]))
    if found is None:
        said = f"{called} is not here; `pip install --group lint` would supply it"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    return found


def scripts(value: Any) -> list[str]:
    """Return every script of a workflow or pipeline."""
    if isinstance(value, dict):
        own = [one for key, one in value.items() if key in ("run", "bash", "script") and isinstance(one, str)]
        return own + [script for one in value.values() for script in scripts(one)]
    return [script for one in value for script in scripts(one)] if isinstance(value, list) else []


def test_there_are_workflows_to_look_at() -> None:
    assert {path.name for path in WORKFLOWS} >= {"ci.yml", "stageway.yml", "watch.yml"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_is_valid_to_github(path: Path) -> None:
    command = [program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_passes_actionlint(path: Path) -> None:
    done = subprocess.run([program("actionlint"), "-no-color", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", AZURE, ids=name)
def test_a_pipeline_is_valid_to_azure(path: Path) -> None:
    vendored = files("check_jsonschema").joinpath("builtin_schemas", "vendor", "azure-pipelines.json")
    # To Azure every scalar is text.
    jsonschema.validate(yaml.load(path.read_text(), yaml.BaseLoader), json.loads(vendored.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [*WORKFLOWS, *AZURE], ids=name)
def test_no_value_is_written_into_a_script(path: Path) -> None:
    found = scripts(yaml.safe_load(path.read_text()))
    assert found
    assert not [script for script in found if "${{" in script]


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_may_only_read_and_names_the_version_of_every_action(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert not [job for job in workflow["jobs"].values() if "permissions" in job]
    used = re.findall(r"^\s*(?:- )?uses: (\S+)", path.read_text(), re.MULTILINE)
    assert used
    assert not [one for one in used if not re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+)*", one)]


def test_ci_runs_the_readmes_two_lines_on_every_supported_python() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    readme = (ROOT / "README.md").read_text()
    said = re.findall(r"python3 -m venv \.venv && .*", readme)
    assert len(said) >= 2
    assert all(f"run: {line}" in text for line in said[:2])
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert jobs["serving-floor"]["strategy"]["matrix"]["python"] == ["3.9", "3.10", "3.11", "3.12", "3.13"]


def test_the_systemd_unit_starts_both_and_spares_the_services() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "triggers" / "systemd" / "stageway.service")
    assert unit["Service"]["ExecStart"].endswith("/stageway up")
    assert unit["Service"]["KillMode"] == "process"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="`apt-get install systemd` would supply it")
def test_the_systemd_unit_is_valid_to_systemd(tmp_path: Path) -> None:
    text = (ROOT / "triggers" / "systemd" / "stageway.service").read_text()
    (tmp_path / "stageway.service").write_text(re.sub(r"%h/my-model/\.venv/bin/stageway", "/bin/true", text))
    command = ["systemd-analyze", "verify", "--user", "--man=no", str(tmp_path / "stageway.service")]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert "stageway.service" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "command",
    [["run", "--help"], ["watch", "--help"], ["up", "--help"], ["down", "--help"]],
    ids=lambda one: one[0],
)
def test_the_commands_that_they_call_exist(command: list[str]) -> None:
    environ = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "stageway", *command], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    wanted = {"watch": "--once", "run": "--json"}.get(command[0], "--workspace")
    assert wanted in done.stdout


@pytest.mark.parametrize("folder", ["tasks", "pipelines", "triggers", "templates", "schemas"])
def test_what_a_readme_links_to_is_there(folder: str) -> None:
    readme = ROOT / folder / "README.md"
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme.read_text())
    assert [link for link in links if not (readme.parent / link).exists()] == []
