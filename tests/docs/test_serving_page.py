"""The page of the scoring server lists every argument that it takes, and says which of them the desk has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer

from stageway.cli.serve import serve
from stageway.serving.arguments import _parser

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
ROWS = [[cell.strip() for cell in line.split("|")[1:3]] for line in PAGE.splitlines() if line.startswith("| `--")]


def test_every_argument_of_the_server_has_its_row() -> None:
    listed = {name.strip(" `") for row in ROWS for name in row[0].split(",")}
    taken = {flag for action in _parser()._actions for flag in action.option_strings if flag.startswith("--")}
    assert listed == taken - {"--help"}


def test_the_desk_has_the_arguments_that_the_page_says() -> None:
    said = {name.strip(" `") for row in ROWS if row[1] == "yes" for name in row[0].split(",")}
    command = typer.main.get_command(serve)
    offered = {flag for one in command.params for flag in one.opts if flag.startswith("--")}
    taken = {flag for action in _parser()._actions for flag in action.option_strings}
    assert said == (offered & taken) - {"--help"}


def test_the_bench_says_how_it_is_used() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "bench.serving", "--help"], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for option in ("--quick", "--docs", "--venvs", "--connections"):
        assert option in done.stdout
