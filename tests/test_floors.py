"""The floors hold, and the check that says so can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder / "src"), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_imports_go_downwards_only(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("gates/metric.py", "import stageway.tasks.deploy", "Each floor imports only floors below it"),
        ("tasks/deploy.py", "import stageway.tasks.promote", "Tasks do not call each other"),
        ("serving/app.py", "import stageway.release", "The serving layer imports"),
        ("tasks/deploy.py", "import mlflow", "mlflow is imported in its adapter only"),
    ],
)
def test_a_planted_upward_import_is_reported(copy: Path, file: str, line: str, said: str) -> None:
    planted = copy / "src" / "stageway" / file
    planted.write_text(planted.read_text() + f"\n{line}\n")
    done = lint(copy)
    assert done.returncode != 0
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert any(said in row for row in broken), done.stdout[-3000:]
    assert line.split()[1] in done.stdout
