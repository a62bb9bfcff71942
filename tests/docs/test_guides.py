"""The guides are about this program: their links lead somewhere, their YAML loads, their commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stageway import plugins
from stageway.cli.main import COMMANDS
from stageway.config.loader import load_pipeline
from stageway.config.schema import json_schema

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "templates" / "README.md"]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in GUIDES}
SET_UP = [
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/stageway demo",
    "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox",
]


def test_the_two_lines_of_the_set_up_stand_at_the_top_of_the_readme() -> None:
    commands = [line.strip() for line in TEXTS["README.md"].splitlines() if line.startswith("    ")]
    assert commands[:2] == SET_UP
    title, sentence, *_ = TEXTS["README.md"].split("\n\n")
    assert title == "# Stageway"
    assert sentence.startswith("Stageway takes every new version")


@pytest.mark.parametrize("guide", TEXTS)
def test_links_lead_somewhere(guide: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXTS[guide]):
        assert "://" not in target, f"{guide}: {target}: the guides are whole without the network"
        assert (ROOT / guide).parent.joinpath(target).exists(), f"{guide}: {target}"


EXAMPLES = [
    (guide, number, block)
    for guide, text in TEXTS.items()
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
]


@pytest.mark.parametrize(("guide", "number", "block"), EXAMPLES, ids=lambda value: str(value)[:30])
def test_every_pipeline_in_a_guide_can_be_read(guide: str, number: int, block: str, tmp_path: Path) -> None:
    for name in ("score.py", "requirements.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "samples").mkdir()
    (tmp_path / "stageway.yml").write_text(block)
    assert load_pipeline(tmp_path / "stageway.yml").stages


@pytest.mark.parametrize("guide", TEXTS)
def test_every_command_in_a_guide_exists(guide: str) -> None:
    known = {*COMMANDS, *plugins.names("task")}
    for command in re.findall(r"(?:`|^ {4}|bin/)stageway ([a-z][a-z-]*)", TEXTS[guide], re.MULTILINE):
        assert command in known, f"{guide}: stageway {command}"


def test_every_command_has_its_line_in_the_guide_of_commands() -> None:
    for command in (*COMMANDS, *plugins.names("task")):
        assert f"`stageway {command}" in TEXTS["docs/commands.md"], command


def test_every_built_in_gate_has_its_section() -> None:
    for gate in plugins.names("gate"):
        assert f"\n## {gate}\n" in TEXTS["docs/gates.md"], gate


def test_every_key_of_the_pipeline_file_is_explained() -> None:
    schema = json_schema()
    elsewhere = ("GateSpec", "TriggerSpec", "ResourcesSpec", "SecretSpec")
    parts = [one for one in schema["$defs"] if one.endswith("Spec") and one not in elsewhere]
    assert {"ServeSpec", "StageSpec", "RequestsSpec", "AuthSpec", "CollectSpec"} <= set(parts)
    for part in parts:
        for key in schema["$defs"][part]["properties"]:
            assert re.search(rf"`(?:[a-z-]+\.)?{key}(?:\.[a-z0-9]+)?`", TEXTS["docs/stageway-yml.md"]), f"{part}: {key}"


@pytest.mark.parametrize("gate", plugins.names("gate"))
def test_every_option_of_a_gate_is_explained(gate: str) -> None:
    section = TEXTS["docs/gates.md"].partition(f"\n## {gate}\n")[2].partition("\n## ")[0]
    options = plugins.load("gate", gate).Options.model_json_schema(by_alias=True)
    parts = [options, *options.get("$defs", {}).values()]
    for key in {key for part in parts for key in part.get("properties", {})}:
        assert f"`{key}`" in section, f"{gate}: {key}"
