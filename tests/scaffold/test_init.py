"""``scaffold.init`` writes a whole project or nothing, and never over what somebody has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stageway import scaffold
from stageway.config.loader import load_pipeline
from stageway.errors import ConfigError


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without any settings, such as a fresh CI runner."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("EMAIL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_project_names_its_model_and_its_pipeline_can_be_read(tmp_path: Path) -> None:
    project = scaffold.init("my-model", tmp_path / "my-model")
    spec = load_pipeline(project.folder / "stageway.yml")
    assert spec.model == "my-model"
    assert list(spec.stages) == ["dev", "prod"]
    assert {"train.py", "score.py", "requirements.txt", "stageway.lock", "README.md"} <= contents(project.folder)


def test_nothing_of_the_template_language_is_left(tmp_path: Path) -> None:
    project = scaffold.init("my-model", tmp_path / "p")
    for path in project.files:
        text = (project.folder / path).read_text()
        assert path.suffix != ".jinja"
        assert "[[ " not in text
        assert "{%" not in text


def test_the_first_commit_holds_every_file(tmp_path: Path) -> None:
    project = scaffold.init("my-model", tmp_path / "p")
    assert project.commit == git(project.folder, "rev-parse", "HEAD")
    assert git(project.folder, "status", "--porcelain") == ""
    assert set(git(project.folder, "ls-files").splitlines()) == {str(path) for path in project.files}


def test_a_user_with_an_identity_commits_under_it(tmp_path: Path) -> None:
    (tmp_path / "home" / ".gitconfig").write_text("[user]\n  name = Ada\n  email = ada@example.com\n")
    project = scaffold.init("my-model", tmp_path / "p")
    assert git(project.folder, "log", "--format=%an <%ae>") == "Ada <ada@example.com>"


def test_a_hook_of_the_user_does_not_hinder_the_first_commit(tmp_path: Path) -> None:
    hook = tmp_path / "hooks" / "pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (tmp_path / "home" / ".gitconfig").write_text(f"[core]\n  hooksPath = {hook.parent}\n")
    assert scaffold.init("my-model", tmp_path / "p").commit is not None


def test_without_git_there_is_a_project_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    project = scaffold.init("my-model", tmp_path / "p")
    assert project.commit is None
    assert "stageway.yml" in contents(project.folder)
    assert ".git" not in contents(project.folder)


def test_inside_a_repository_a_project_is_part_of_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert scaffold.init("my-model", tmp_path / "p").commit is None
    assert ".git" not in contents(tmp_path / "p")


def test_a_folder_that_the_surrounding_repository_ignores_gets_its_own(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/p/\n")
    assert scaffold.init("my-model", tmp_path / "p").commit is not None


def test_own_repository_is_made_wherever_the_project_lies(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    project = scaffold.init("my-model", tmp_path / "p", own_repository=True)
    assert git(project.folder, "rev-parse", "--show-toplevel") == str(project.folder.resolve())


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not empty \(it has thesis.txt\); choose another with --folder"):
        scaffold.init("my-model", tmp_path / "p")
    assert contents(tmp_path / "p") == {"thesis.txt"}
    assert contents(tmp_path) == {"p", "home"}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("")
    with pytest.raises(ConfigError, match="is in the way and is not a folder"):
        scaffold.init("my-model", tmp_path / "p")


def test_the_current_folder_is_filled_when_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    scaffold.init("my-model", Path())
    # The folder is still the one that the shell stands in.
    assert {"stageway.yml", ".git"} <= contents(Path.cwd())


@pytest.mark.parametrize("name", ["", "../x", "/abs", "a b", "a@b", "a:1", "x\0y", ".hidden", "a..b", "ü"])
def test_a_name_that_cannot_be_deployed_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a model cannot be called"):
        scaffold.init(name, tmp_path / "p")
    assert contents(tmp_path) == {"home"}


@pytest.mark.parametrize("template", ["pytorch", "../sklearn", "/etc", ""])
def test_an_unknown_template_is_answered_with_those_there_are(template: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no template is called .*; there are: sklearn"):
        scaffold.init("my-model", tmp_path / "p", template)


def test_an_answer_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not ask for 'ownr'; it asks for: owner"):
        scaffold.init("my-model", tmp_path / "p", answers={"ownr": "me"})


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        scaffold.init("my-model", tmp_path / "file" / "p")


# copier leaves the folder it was listing open when a file cannot be rendered.
@pytest.mark.filterwarnings("ignore:unclosed scandir iterator:ResourceWarning")
def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A template that cannot be rendered: its last file names a variable's attribute that does not exist.
    broken = tmp_path / "catalog" / "templates" / "broken"
    (broken / "project").mkdir(parents=True)
    (broken / "copier.yml").write_text("# Breaks.\n_subdirectory: project\nmodel: {type: str}\n")
    (broken / "project" / "a.txt").write_text("fine")
    (broken / "project" / "z.txt.jinja").write_text("{{ model.nothing.there }}")
    monkeypatch.setattr("stageway.catalog.root", lambda: tmp_path / "catalog")
    with pytest.raises(ConfigError, match="template 'broken' cannot be rendered"):
        scaffold.init("my-model", tmp_path / "p", "broken")
    assert contents(tmp_path) == {"catalog", "home"}


def test_a_template_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unsafe = tmp_path / "catalog" / "templates" / "unsafe"
    (unsafe / "project").mkdir(parents=True)
    (unsafe / "copier.yml").write_text(
        "# Runs code.\n_subdirectory: project\n_tasks: ['touch x']\nmodel: {type: str}\n"
    )
    (unsafe / "project" / "a.txt").write_text("fine")
    monkeypatch.setattr("stageway.catalog.root", lambda: tmp_path / "catalog")
    with pytest.raises(ConfigError, match="template 'unsafe' cannot be rendered"):
        scaffold.init("my-model", tmp_path / "p", "unsafe")
    assert contents(tmp_path) == {"catalog", "home"}


def test_every_template_says_in_a_sentence_what_it_is() -> None:
    found = scaffold.templates()
    assert "sklearn" in found
    assert all(len(sentence) > 20 for sentence in found.values())
