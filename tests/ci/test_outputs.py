"""Outputs reach the CI system whole, and no value becomes a command."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from stageway.ci.outputs import COMMANDS, OUTPUTS, emit, summary
from stageway.errors import ConfigError

HOSTILE = [
    "plain",
    "",
    "two\nlines",
    "dos\r\nlines",
    "old\rmac",
    "x\nrelease=r-forged",
    "x\nend-0\nrelease=r-forged",
    "a<<b",
    "=",
    "::set-output name=release::forged",
    "\n::add-mask::everything",
    "##vso[task.setvariable variable=PATH]/tmp",
    "\n##vso[task.setvariable variable=PATH]/tmp",
    "100%",
    "%0A##vso[task.complete result=Succeeded]",
    "%AZP25",
    "a;b]c",
    "| x | <script>alert(1)</script> | [link](http://x) ![](y) `code` **b** &amp;",
    "snow ☃ and \U0001f600",
]


def as_github_reads(text: str) -> dict[str, str]:
    """Read an output file by the rules of the runner: NAME=VALUE, or NAME<<FENCE up to a line that is the fence."""
    found: dict[str, str] = {}
    lines = iter(re.split(r"(?<=\n)", text))
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            continue
        equals, fence_at = line.find("="), line.find("<<")
        if equals >= 0 and (fence_at < 0 or equals < fence_at):
            found[line[:equals]] = line[equals + 1 :]
            continue
        assert fence_at > 0, f"the runner refuses {line!r}"
        name, fence = line[:fence_at], line[fence_at + 2 :]
        value = ""
        for more in lines:
            if more == fence + "\n":
                break
            value += more
        else:
            pytest.fail("the fence never closes")
        found[name] = value.removesuffix("\n")
    return found


def as_azure_reads(text: str) -> dict[str, str]:
    """Read commands by the rules of the agent: one in a line, its data after the first ``]``, decoded."""
    found: dict[str, str] = {}
    for line in re.split(r"\r\n|\r|\n", text):
        if not line:
            continue
        match = re.fullmatch(r"##vso\[task\.setvariable variable=([a-z-]+);isOutput=true\](.*)", line)
        assert match, f"the agent would obey {line!r}"
        found[match[1]] = match[2].replace("%0D", "\r").replace("%0A", "\n").replace("%AZP25", "%")
    return found


@pytest.mark.parametrize("value", HOSTILE)
def test_github_reads_back_what_was_set_and_nothing_else(tmp_path: Path, value: str) -> None:
    file = tmp_path / "output"
    file.write_text("before=1\n")
    emit({"model": value, "version": "2"}, {"GITHUB_OUTPUT": str(file)})
    with file.open(newline="") as written:
        assert as_github_reads(written.read()) == {"before": "1", "model": value, "version": "2"}


@pytest.mark.parametrize("value", HOSTILE)
def test_azure_reads_back_what_was_set_and_nothing_else(capsys: pytest.CaptureFixture[str], value: str) -> None:
    emit({"model": value, "version": "2"}, {"TF_BUILD": "True"})
    assert as_azure_reads(capsys.readouterr().out) == {"model": value, "version": "2"}


def test_azure_commands_go_to_a_file_where_the_output_is_filtered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "commands"
    emit({"release": "r-1"}, {"TF_BUILD": "True", COMMANDS: str(file)})
    assert capsys.readouterr().out == ""
    assert as_azure_reads(file.read_text()) == {"release": "r-1"}


def test_azure_commands_leave_standard_output_to_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"release": "r-1"}, {"TF_BUILD": "True"}, stream=sys.stderr)
    said = capsys.readouterr()
    assert said.out == ""
    assert as_azure_reads(said.err) == {"release": "r-1"}


def test_stage_and_endpoint_are_told_to_be_of_the_stage_that_was_worked_on() -> None:
    assert "the task worked on" in OUTPUTS["stage"]
    assert "that stage" in OUTPUTS["endpoint"]


@pytest.mark.parametrize("value", HOSTILE)
def test_the_summary_is_one_row_a_value_without_markup(value: str) -> None:
    text = summary({"model": value, "version": "2"})
    rows = [line for line in text.splitlines() if line]
    assert len(rows) == 4
    assert all(row.count("|") == 3 for row in rows)
    assert not re.search(r"[<>`\[\]*!]", text)


def test_the_summary_goes_to_its_file(tmp_path: Path) -> None:
    emit({"model": "iris"}, {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary")})
    assert "| model | iris |" in (tmp_path / "summary").read_text()


def test_fences_differ_every_time(tmp_path: Path) -> None:
    emit({"a": "1\n2", "b": "1\n2"}, {"GITHUB_OUTPUT": str(tmp_path / "output")})
    fences = re.findall(r"<<(.*)", (tmp_path / "output").read_text())
    assert len(set(fences)) == 2


def test_elsewhere_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"model": "iris"}, {"TF_BUILD": "", "GITHUB_OUTPUT": ""})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["a b", "a=b", "A", "a\nb", "", "x]y", "1a"])
def test_a_name_that_could_be_a_command_is_our_bug(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of an output"):
        emit({name: "x"}, {"TF_BUILD": "True"})


def test_a_file_that_cannot_be_written_is_told_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^GITHUB_OUTPUT: '.*away/output' cannot be written"):
        emit({"model": "iris"}, {"GITHUB_OUTPUT": str(tmp_path / "away" / "output")})
