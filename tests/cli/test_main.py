"""The command line as a program: what it prints, what it costs, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stageway.cli.main import COMMANDS, TASK_HELP

HEAVY = ("mlflow", "sqlalchemy", "alembic", "docker", "kubernetes", "git", "pydantic", "copier", "granian", "numpy")


def stageway(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stageway", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def third_party_task(folder: Path, body: str) -> Path:
    """Install a wheel's worth of one task into *folder*, as a third party would."""
    (folder / "odd.py").write_text(
        "from typing import Annotated\n"
        "from stageway.config.workspace import Workspace\nfrom stageway.dossier import Dossier\n\n"
        "def odd(dossier: Dossier, workspace: Workspace, *, stage: Annotated[str, 'Where.'] = 'x') -> Dossier:\n"
        f"    {body}\n"
    )
    info = folder / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stageway.tasks]\nodd = odd:odd\n")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "stageway.yml").write_text("model: diabetes\nstages:\n  dev: {target: local}\n")
    return folder


def test_help_lists_every_command_and_its_purpose(tmp_path: Path) -> None:
    text = stageway("--help", cwd=tmp_path).stdout
    for name, (_, purpose, _) in COMMANDS.items():
        assert name in text
        assert purpose.split(".")[0] in text
    for name, purpose in TASK_HELP.items():
        assert name in text
        assert purpose in text


KEYS = ("make", "rotate", "pair", "trust", "token")
GROUPS = {"model": ("list", "show", "download", "delete"), "schema": ("print", "check"), "keys": KEYS}
ALL = [
    *((name,) for name in (*COMMANDS, *TASK_HELP) if name not in GROUPS),
    *((group, name) for group, names in GROUPS.items() for name in names),
]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_explains_itself_with_an_example(words: tuple[str, ...], tmp_path: Path) -> None:
    done = stageway(*words, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage: stageway " + " ".join(words) in done.stdout
    assert "Example: stageway " + " ".join(words) in done.stdout


def test_wrong_use_is_json_too_where_json_was_asked_for(tmp_path: Path) -> None:
    done = stageway("status", "--colour", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert "--colour" in json.loads(done.stdout)["error"]


def test_a_checked_file_is_said_to_be_right_in_json(project: Path) -> None:
    done = stageway("schema", "check", "--json", cwd=project)
    assert json.loads(done.stdout) == {"file": "stageway.yml", "ok": True}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    probe = (
        "import sys\nfrom stageway.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "import typer\nbare = set()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    bare = subprocess.run(
        [sys.executable, "-c", f"import sys, typer; print([n for n in {HEAVY!r} if n in sys.modules])"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.strip().splitlines()[-1] == bare.stdout.strip(), "stageway --help loads more than typer does"


def test_a_command_that_does_not_exist_is_wrong_use(tmp_path: Path) -> None:
    done = stageway("depoly", cwd=tmp_path)
    assert done.returncode == 2
    assert "depoly" in done.stderr


def test_no_project_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    done = stageway("plan", "diabetes", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "stageway init" in done.stderr


def test_errors_are_json_where_json_was_asked_for(tmp_path: Path) -> None:
    done = stageway("model", "list", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert said["exit_code"] == done.returncode == 2
    assert "stageway.yml" in said["error"]


def test_a_task_of_others_is_a_command_with_its_inputs(project: Path, tmp_path: Path) -> None:
    place = third_party_task(tmp_path, "return dossier")
    shown = stageway("odd", "--help", cwd=project, PYTHONPATH=str(place))
    assert "--stage" in shown.stdout
    dossier = tmp_path / "dossier.json"
    dossier.write_text('{"format": 1, "pipeline": "diabetes"}')
    done = stageway("odd", "--dossier", str(dossier), "--json", cwd=project, PYTHONPATH=str(place))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pipeline"] == "diabetes"


def test_our_bug_is_exit_70_and_a_report_without_the_terminal_full_of_traceback(project: Path, tmp_path: Path) -> None:
    place = third_party_task(tmp_path, "raise ZeroDivisionError('hm')")
    dossier = tmp_path / "dossier.json"
    dossier.write_text('{"format": 1}')
    done = stageway("odd", "--dossier", str(dossier), cwd=project, PYTHONPATH=str(place), TMPDIR=str(tmp_path))
    assert done.returncode == 70
    assert "Traceback" not in done.stderr
    (report,) = tmp_path.glob("stageway-bug-*.txt")
    assert str(report) in done.stderr
    assert "ZeroDivisionError" in report.read_text()


def test_interrupt_is_exit_130(project: Path, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    place = third_party_task(
        tmp_path, f"import pathlib, time; pathlib.Path({str(marker)!r}).touch(); time.sleep(60); return dossier"
    )
    dossier = tmp_path / "dossier.json"
    dossier.write_text('{"format": 1}')
    process = subprocess.Popen(
        [sys.executable, "-m", "stageway", "odd", "--dossier", str(dossier)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(place)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not marker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted; the same command again goes on from here"
    assert dossier.read_text() == '{"format": 1}', "an interrupted task leaves the dossier as it was"


def test_a_damaged_dossier_names_the_file_and_the_key(project: Path, tmp_path: Path) -> None:
    place = third_party_task(tmp_path, "return dossier")
    dossier = tmp_path / "dossier.json"
    dossier.write_text('{"format": 1, "colour": "blue"}')
    done = stageway("odd", "--dossier", str(dossier), cwd=project, PYTHONPATH=str(place))
    assert done.returncode == 2
    assert str(dossier) in done.stderr
    assert "colour" in done.stderr


def test_exec_runs_only_what_is_named(project: Path) -> None:
    done = stageway("exec", cwd=project)
    assert done.returncode == 2
    assert "stageway exec -- python train.py" in done.stderr


def test_init_takes_answers_to_the_templates_questions(tmp_path: Path) -> None:
    done = stageway("init", "iris", "--set", "owner=acme", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "iris")
    assert "acme/stageway" in (tmp_path / "iris" / ".github" / "workflows" / "deploy.yml").read_text()
    assert "write KEY=VALUE" in stageway("init", "other", "--set", "owner", cwd=tmp_path).stderr
