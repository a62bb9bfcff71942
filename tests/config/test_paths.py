"""Paths in ``serve`` exist and stay in the project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stageway.specs import PipelineSpec

Load = Callable[[str], PipelineSpec]
Problems = Callable[[str], list[str]]


def serve(keys: str) -> str:
    return f"model: m\nserve: {{{keys}}}\nstages: {{dev: {{}}}}\n"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("entry-script: away.py", "2:23: serve.entry-script: no file is called 'away.py' in "),
        ("entry-script: samples", "2:23: serve.entry-script: 'samples' is not a file"),
        ("entry-script: ../score.py", "2:23: serve.entry-script: '../score.py' leaves the project's folder; move "),
        ("entry-script: samples/../../x.py", "2:23: serve.entry-script: 'samples/../../x.py' leaves the project"),
        ("entry-script: /etc/passwd", "2:23: serve.entry-script: '/etc/passwd' is absolute; write it relative to "),
        ('entry-script: "a\\0b"', "2:23: serve.entry-script: 'a\\x00b' is not a path"),
        ("entry-script: ''", "2:23: serve.entry-script: '' is not a path"),
        ("entry-script: link.py", "2:23: serve.entry-script: 'link.py' leaves the project's folder"),
        ("entry-script: loop.py", "2:23: serve.entry-script: "),
        ("dependencies: needs.txt", "2:23: serve.dependencies: no file is called 'needs.txt' in "),
        ("samples: score.py", "2:18: serve.samples: 'score.py' is not a folder"),
        ("samples: outside", "2:18: serve.samples: 'outside' leaves the project's folder"),
        ("lock: ../stageway.lock", "2:15: serve.lock: '../stageway.lock' leaves the project's folder"),
        ("source-directory: ..", "2:27: serve.source-directory: '..' leaves the project's folder"),
        ("source-directory: src, entry-script: score.py", "2:46: serve.entry-script: no file is called 'score.py' in "),
    ],
)
def test_a_path_that_leaves_or_is_missing_is_refused(
    project: Path, tmp_path: Path, problems: Problems, keys: str, said: str
) -> None:
    (tmp_path / "x.py").write_text("")
    (tmp_path / "score.py").write_text("")
    (tmp_path / "out").mkdir()
    (project / "src").mkdir()
    (project / "link.py").symlink_to(tmp_path / "x.py")
    (project / "loop.py").symlink_to("loop.py")
    (project / "outside").symlink_to(tmp_path / "out")
    assert problems(serve(keys))[0].startswith(f"stageway.yml:{said}")


def test_paths_inside_are_fine_and_the_lock_may_come_later(project: Path, load: Load) -> None:
    (project / "src" / "pkg").mkdir(parents=True)
    (project / "src" / "pkg" / "score.py").write_text("")
    (project / "alias.txt").symlink_to("requirements.txt")
    spec = load(
        serve("source-directory: src, entry-script: pkg/score.py, dependencies: alias.txt, samples: ./samples/")
    )
    assert spec.serve.entry_script == "pkg/score.py"


def test_a_project_reached_through_a_symlink_is_inside_itself(project: Path, tmp_path: Path, load: Load) -> None:
    from stageway.config.loader import load_pipeline

    load(serve("entry-script: score.py"))
    (tmp_path / "door").symlink_to(project)
    assert load_pipeline(tmp_path / "door" / "stageway.yml").model == "m"
