"""The Git repository of a new project: made with one commit, where git is there.

Only for starting projects; what git says of a version is read where versions are registered.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from stageway import output

# A hook, or the variables of a surrounding git command, must not lead this commit elsewhere.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
_PLAIN = ("-c", "commit.gpgSign=false", "-c", "core.hooksPath=/dev/null", "-c", "advice.defaultBranchName=false")


def tracks(repository: Path, folder: Path) -> bool:
    """Return whether *repository* lies in a Git repository that would track *folder* (and does not ignore it)."""
    if shutil.which("git") is None:
        return False
    inside = _git(repository, "rev-parse", "--is-inside-work-tree")
    if inside.returncode != 0 or inside.stdout.strip() != "true":
        return False
    return _git(repository, "check-ignore", "--quiet", f"{folder}{os.sep}").returncode != 0


def create(folder: Path, message: str) -> str | None:
    """Make *folder* a repository with one commit of all that is there; return the commit, or ``None`` without git."""
    if shutil.which("git") is None:
        output.note("git is not there: versions of this project are registered without a commit")
        return None
    identity: tuple[str, ...] = ()
    if _git(folder, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT").returncode != 0:
        identity = ("-c", "user.name=Stageway", "-c", "user.email=stageway@localhost")
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("commit", "--quiet", "--no-verify", "--message", message),
    ):
        done = _git(folder, *_PLAIN, *identity, *command)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            output.note(f"git {command[0]} did not work ({said[-1]}); make the first commit yourself")
            return None
    return _git(folder, "rev-parse", "HEAD").stdout.strip()


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**environment, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
