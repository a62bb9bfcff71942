"""Which commit a folder is at: the one place that uses GitPython."""

from __future__ import annotations

import os
from pathlib import Path

from stageway.facts import Fact


class Commit(Fact):
    """The commit that is checked out, and whether tracked files differ from it."""

    id: str
    dirty: bool


def commit_of(folder: Path) -> Commit | None:
    """Return the commit of the repository that holds *folder*; ``None`` without repository, commit or git itself."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a missing git is answered here, not at import
    import git

    try:
        with git.Repo(folder, search_parent_directories=True) as repository:
            return Commit(id=repository.head.commit.hexsha, dirty=repository.is_dirty())
    except (git.GitError, git.ODBError, ValueError, OSError):
        return None
