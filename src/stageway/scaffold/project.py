"""Write a new project from a template of the catalog: the whole folder, or nothing of it.

copier's library renders; features of it that run code of a template stay off.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stageway import catalog
from stageway.errors import ConfigError
from stageway.release import check_model_name
from stageway.scaffold import repository

QUESTIONS = "copier.yml"


@dataclass(frozen=True)
class Project:
    """What ``init`` wrote. *commit* is the first commit of its own Git repository, if it got one."""

    folder: Path
    files: tuple[Path, ...]
    commit: str | None


def templates() -> dict[str, str]:
    """Return the names of the catalog's templates and, for each, the sentence its file opens with."""
    found = sorted((catalog.root() / "templates").glob(f"*/{QUESTIONS}"))
    return {
        path.parent.name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").rstrip(".") for path in found
    }


def init(
    name: str,
    folder: Path,
    template: str = "sklearn",
    *,
    answers: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    own_repository: bool = False,
) -> Project:
    """Write a project for the model *name* into *folder*, which must be new or empty.

    It becomes a Git repository with a first commit, because the commit is recorded with each version of the model;
    inside a repository that would track it, it stays part of that one (unless *own_repository*). *files* are put
    beside what the template renders.
    """
    check_model_name(name)
    data = {**_answers(template, answers or {}), "model": name}
    target = folder.absolute()
    _refuse_what_is_in_the_way(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        rendered = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    except OSError as error:
        raise _not_writable(target, error) from error
    try:
        # mkdtemp's 0700 is for secrets; a project has the access that the user's other folders have.
        project = rendered / "project"
        project.mkdir()
        _render(template, project, data)
        for path, text in (files or {}).items():
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(text, encoding="utf-8")
        commit = None
        if own_repository or not repository.tracks(target.parent, target):
            commit = repository.create(project, f"Start {name} from Stageway's template {template}")
        _move(project, target)
    except OSError as error:
        raise _not_writable(target, error) from error
    finally:
        shutil.rmtree(rendered, ignore_errors=True)
    written = (path.relative_to(target) for path in target.rglob("*") if path.is_file())
    return Project(target, tuple(sorted(path for path in written if path.parts[0] != ".git")), commit)


def _answers(template: str, given: Mapping[str, str]) -> dict[str, str]:
    known = templates()
    if template not in known:
        raise ConfigError(f"no template is called {template!r}; there are: {', '.join(known)}")
    questions = yaml.safe_load((_source(template) / QUESTIONS).read_text(encoding="utf-8"))
    names = [key for key in questions if not key.startswith("_") and key != "model"]
    for key in given:
        if key not in names:
            raise ConfigError(
                f"template {template!r} does not ask for {key!r}; it asks for: {', '.join(names) or 'nothing'}"
            )
    return dict(given)


def _source(template: str) -> Path:
    return catalog.root() / "templates" / template


def _refuse_what_is_in_the_way(folder: Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is in the way and is not a folder; choose another with --folder")
    there = sorted(path.name for path in folder.iterdir())
    if there:
        some = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise ConfigError(
            f"{folder}: is not empty (it has {some}); choose another with --folder, or remove what is there"
        )


def _render(template: str, into: Path, data: Mapping[str, Any]) -> None:
    import copier
    from copier.errors import CopierError
    from jinja2 import TemplateError

    try:
        copier.run_copy(
            str(_source(template)),
            into,
            data=dict(data),
            settings=copier.Settings(),
            defaults=True,
            overwrite=True,
            quiet=True,
            unsafe=False,
        )
    except (CopierError, TemplateError) as error:
        raise ConfigError(f"template {template!r} cannot be rendered: {error}") from error


def _move(project: Path, target: Path) -> None:
    """Put the finished project in place: by one rename, or, into an empty folder that somebody made, in pieces."""
    if not target.exists():
        project.rename(target)
        return
    _refuse_what_is_in_the_way(target)
    moved: list[Path] = []
    try:
        # stageway.yml makes it a workspace, so it comes last.
        for path in sorted(project.iterdir(), key=lambda path: path.name == "stageway.yml"):
            moved.append(target / path.name)
            path.rename(target / path.name)
    except BaseException:
        for path in moved:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder}: cannot be written: {error.strerror or error}; choose another with --folder")
