"""What of a project goes into its source layer: the entry script alone, or the whole source directory.

Ignore files are not honoured (nor were they by Azure ML v1): what is left out silently is missed in production.
Left out are version control, our own state, bytecode and virtual environments; what looks like a secret is refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stageway.bundle import MODELS
from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, PackagingError, TryAgainError
from stageway.images import tree

LEFT_OUT = frozenset({".git", ".stageway", "__pycache__"})
SECRET_NAMES = frozenset(
    {".env", ".netrc", ".pypirc", ".git-credentials", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk"}
)
HARMLESS_ENDINGS = (".example", ".sample", ".template", ".dist")
SECRET_ENDINGS = (".p12", ".pfx", ".jks", ".kdbx")
KEY_ENDINGS = (".pem", ".key")


@dataclass(frozen=True)
class Sources:
    """The files of a source layer: path in the layer → file or link on disk.

    *entry_script* and *directory* are relative to the app root; the directory keeps its own name there, as in v1, and
    a source directory that is the project itself is the app root.
    """

    files: dict[str, Path]
    entry_script: str | None
    directory: str | None

    def listing(self) -> list[list[object]]:
        """Say what is in them, by bytes: what the layer is made from."""
        return [[inside, *_state(path)] for inside, path in sorted(self.files.items())]

    def copy(self, into: Path, listing: list[list[object]]) -> None:
        """Make the files in the folder *into*. Raises ``TryAgainError`` when they are not as *listing* says by now."""
        for inside, path in sorted(self.files.items()):
            target = into / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() and self.directory is not None:
                target.symlink_to(path.readlink())
                continue
            try:
                shutil.copyfile(path, target)
            except OSError as error:
                raise _unreadable(path, error) from error
            target.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        for name, *state in listing:
            if not self._is(into / str(name), state):
                path = self.files[str(name)]
                raise TryAgainError(f"{path}: changed while it was packaged; run the same command again", after=1.0)

    def _is(self, copy: Path, state: list[object]) -> bool:
        """Say whether *copy* is what was listed as *state*."""
        if copy.is_symlink():
            return state[:2] == ["link", str(copy.readlink())]  # what it leads to is listed for itself
        if state[0] == "link" and self.directory is None:  # a lone script goes by its bytes
            return state[2] == tree.file_digest(copy)
        return tuple(state) == _state(copy)


def gather(workspace: Workspace) -> Sources | None:
    """Return the sources that ``stageway.yml`` names, or ``None`` when it names none.

    Raises ``ConfigError`` for what is not there, ``PackagingError`` for what must not leave this machine.
    """
    serve = workspace.spec.serve
    if serve.source_directory is None:
        if serve.entry_script is None:
            return None
        script = _entry_script(workspace, workspace.root, serve.entry_script)
        return Sources({script.name: script}, script.name, None)
    folder = (workspace.root / serve.source_directory).resolve()
    if not folder.is_dir():
        raise ConfigError(
            f"{workspace.file}: serve.source-directory: no such folder {serve.source_directory!r}; "
            "name one relative to stageway.yml"
        )
    directory = "." if folder == workspace.root.resolve() else folder.name
    prefix = "" if directory == "." else directory + "/"
    files = {prefix + inside: path for inside, path in _walk(folder, folder, "")}
    clash = next((name for name in files if name.split("/")[0] == MODELS), None)
    if clash is not None:
        raise ConfigError(f"{folder / clash}: {MODELS} is where the models go in a service; rename the folder")
    entry = None
    if serve.entry_script is not None:
        script = _entry_script(workspace, folder, serve.entry_script)
        entry = prefix + PurePosixPath(os.path.relpath(script, folder)).as_posix()
        if entry not in files:
            raise ConfigError(
                f"{workspace.file}: serve.entry-script: {serve.entry_script!r} is left out of the source directory; "
                f"move it out of {', '.join(sorted(LEFT_OUT))} and virtual environments"
            )
    return Sources(files, entry, directory)


def _entry_script(workspace: Workspace, folder: Path, name: str) -> Path:
    where = f"{workspace.file}: serve.entry-script"
    script = Path(os.path.normpath(folder / name))
    if not script.is_relative_to(os.path.normpath(folder)) or "\0" in name:
        raise ConfigError(f"{where}: {name!r} leaves {folder}; name a file inside it")
    if not script.is_file():
        raise ConfigError(f"{where}: no such file {name!r} in {folder}")
    if script.suffix != ".py":
        raise ConfigError(f"{where}: {name!r} is not a Python file; name the one with init() and run()")
    if not script.resolve().is_relative_to(folder.resolve()):
        raise PackagingError(f"{script}: links to {str(script.resolve())!r}, outside of {folder}; copy the file there")
    return script


def _walk(folder: Path, root: Path, inside: str) -> Iterator[tuple[str, Path]]:
    try:
        found = sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    for one in found:
        path = Path(one.path)
        if one.name in LEFT_OUT or one.name.endswith(".pyc"):
            continue
        if one.is_symlink():
            tree.check_link(path, root)
            check_secret(path)
            yield inside + one.name, path
        elif one.is_dir():
            if not (path / "pyvenv.cfg").exists():
                yield from _walk(path, root, inside + one.name + "/")
        elif one.is_file():
            check_secret(path)
            yield inside + one.name, path
        else:
            raise PackagingError(f"{path}: is neither file, folder nor link, and cannot be packaged; remove it")


def check_secret(path: Path) -> None:
    """Raise ``PackagingError`` when *path* looks like a secret by its name (``.pem``, ``.key``: by its text)."""
    name = path.name.lower()
    if name.endswith(HARMLESS_ENDINGS):
        return
    secret = name in SECRET_NAMES or name.startswith(".env.") or name.endswith(SECRET_ENDINGS)
    if not secret and name.endswith(KEY_ENDINGS):
        try:
            with path.open("rb") as file:
                secret = b"PRIVATE KEY" in file.read(65536)
        except OSError as error:
            raise _unreadable(path, error) from error
    if secret:
        raise PackagingError(
            f"{path}: looks like a secret, and everything in the source directory goes into the image; "
            "move it out of there, and give the service its value at run time"
        )


def _state(path: Path) -> tuple[object, ...]:
    try:
        if path.is_symlink():
            return "link", str(path.readlink()), tree.file_digest(path) if path.is_file() else ""
        return "file", bool(path.stat().st_mode & 0o100), tree.file_digest(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> PackagingError:
    return PackagingError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}")
