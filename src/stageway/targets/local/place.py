"""The folders of the local target. What runs, and as what, is read from the files here and nowhere else.

    .stageway/keeper.lock, keeper.json, keeper.log          held while the keeper lives, where it listens, what it did
    .stageway/services/<service>/service.json               its port, its stage, the shares of traffic
    .stageway/services/<service>/.incoming/<name>/app/      an app root on its way in
    .stageway/services/<service>/<revision>/labels.json     what this revision is, and its process
    .stageway/services/<service>/<revision>/launch.json, control, service.log, app/

Sockets are elsewhere, because their paths may have 104 bytes only: see ``runtime_folder``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stageway.errors import ConfigError, TargetError

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
LONGEST_BASE = 60
"""Bytes; what is below has 35, and the path of a socket can have 103."""
GIVEN_UP = 3600.0
"""Seconds after which an app root that did not come in belongs to nobody."""
SAME_BOOT = 30.0
"""Seconds by which the time of a start may differ between two readings."""
LOGS_KEPT = 5
"""Revisions that are gone leave their log; of each service the newest few stay."""


def checked(name: str, what: str) -> str:
    """Return *name* if it can be the name of a folder. Raises ``ConfigError``."""
    if not NAME.match(name):
        raise ConfigError(
            f"{what} {name!r}: cannot be used on the target local; letters, digits, '.', '_' and '-', at most 100"
        )
    return name


def keeper_file(state: Path) -> Path:
    """Return the file in which the keeper says where it is: pid, started, boot, socket."""
    return state / "keeper.json"


def lock_file(state: Path) -> Path:
    return state / "keeper.lock"


def log_file(state: Path) -> Path:
    return state / "keeper.log"


def unwritable(error: OSError) -> str:
    """Say that the workspace cannot be written, and where."""
    return f"{error.filename}: {error.strerror}; the workspace must be writable and have room"


def boot() -> str:
    """Return what is another thing after a restart of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil

        return str(psutil.boot_time())


def same_boot(one: object, other: str) -> bool:
    """Say whether ``boot`` said both since one start of the machine; where it is a time, setting the clock moves it."""
    if one == other:
        return True
    try:
        return abs(float(str(one)) - float(other)) <= SAME_BOOT
    except ValueError:
        return False


def write_json(path: Path, value: Any) -> None:
    """Write a file that is whole at every moment; only its owner reads it."""
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a full disk does not name the file
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what is in *path*; ``None`` when there is no such file. Raises ``TargetError`` when it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise damaged(path) from error
    if not isinstance(value, dict):
        raise damaged(path)
    return value


def damaged(path: Path) -> TargetError:
    return TargetError(f"{path}: is damaged; restore it, or remove {path.parent} and deploy again")


@dataclass(frozen=True)
class Labels:
    """What a revision says of itself. *nonce* is in its process's environment; *since* is ms since 1970.

    ``pid`` is ``None`` from before a process is started until it is, so a process may live that only its nonce tells.
    """

    service: str
    stage: str
    revision: str
    release: str
    model: str
    config: str
    since: int
    nonce: str | None = None
    pid: int | None = None
    started: float | None = None
    restarts: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Labels:
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ServiceFile:
    """What holds for a service as a whole. *chosen*: its port was found by us and not asked for."""

    service: str
    stage: str
    port: int
    chosen: bool
    weights: dict[str, float] = field(default_factory=dict)
    stopped: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ServiceFile:
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class RevisionPlace:
    """The folder of one revision."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.labels_file = folder / "labels.json"
        self.launch_file = folder / "launch.json"
        self.control = folder / "control"
        self.log = folder / "service.log"
        self.app = folder / "app"

    def labels(self) -> Labels | None:
        """Return what this revision is. Raises ``TargetError`` when its file cannot be read."""
        value = read_json(self.labels_file)
        try:
            return Labels.from_json(value) if value is not None else None
        except TypeError as error:
            raise damaged(self.labels_file) from error

    def launch(self) -> dict[str, Any] | None:
        """Return how the process is started: argv, env, cwd, socket, workers, ready_timeout, drain_timeout."""
        return read_json(self.launch_file)

    def clear(self) -> None:
        """Remove everything but the log. The labels go first: without them there is no revision."""
        self.labels_file.unlink(missing_ok=True)
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else []:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif not path.name.startswith(self.log.name):
                path.unlink(missing_ok=True)


class ServicePlace:
    """The folder of one service."""

    def __init__(self, state: Path, service: str) -> None:
        self.name = checked(service, "service")
        self.folder = state / "services" / service
        self.file = self.folder / "service.json"
        self.incoming = self.folder / ".incoming"

    def read(self) -> ServiceFile | None:
        """Return what holds for the service; ``None`` when there is none. Raises ``TargetError`` as ``read_json``."""
        value = read_json(self.file)
        try:
            return ServiceFile.from_json(value) if value is not None else None
        except TypeError as error:
            raise damaged(self.file) from error

    def revision(self, name: str) -> RevisionPlace:
        return RevisionPlace(self.folder / checked(name, "revision"))

    def revisions(self) -> list[RevisionPlace]:
        """Return the folders of revisions, the youngest log first; some may hold nothing but a log."""
        try:
            folders = [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        except OSError:
            return []
        found = [RevisionPlace(path) for path in folders]
        return sorted(found, key=lambda one: _changed(one.log), reverse=True)

    def prune(self) -> None:
        """Remove the oldest of the folders that are only a log by now, and what will never come in."""
        for path in self.incoming.glob("*"):
            if _changed(path) < time.time() - GIVEN_UP:
                shutil.rmtree(path, ignore_errors=True)
        for place in [one for one in self.revisions() if not one.labels_file.exists()][LOGS_KEPT:]:
            shutil.rmtree(place.folder, ignore_errors=True)


def services(state: Path) -> list[ServicePlace]:
    """Return the places of all services of a workspace, by name."""
    try:
        names = sorted(path.name for path in (state / "services").iterdir() if path.is_dir() and NAME.match(path.name))
    except OSError:
        return []
    return [ServicePlace(state, name) for name in names]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def runtime_folder(state: Path) -> Path:
    """Return the folder of a workspace's sockets: short, made here, and nobody else's.

    Not in ``$XDG_RUNTIME_DIR``: that is emptied when the user logs out, and services stay.
    """
    base = Path(os.environ.get("STAGEWAY_RUNTIME_DIR") or f"/tmp/stageway-{os.getuid()}").absolute()  # noqa: S108
    if len(os.fsencode(base)) > LONGEST_BASE:
        raise TargetError(
            f"STAGEWAY_RUNTIME_DIR {base}: longer than {LONGEST_BASE} bytes, too long for paths of sockets"
        )
    where = state.stat()
    name = hashlib.sha256(f"{state}\0{where.st_dev}:{where.st_ino}".encode()).hexdigest()[:12]
    for folder in (base, base / name):
        try:
            folder.mkdir(mode=0o700, parents=folder is base)
        except FileExistsError:
            pass
        except OSError as error:
            raise TargetError(
                f"{folder}: cannot be made for the sockets of the local target: {error.strerror}; "
                "set STAGEWAY_RUNTIME_DIR to a short path of your own"
            ) from error
        check_owned(folder)
    return base / name


def check_owned(folder: Path) -> None:
    """Raise ``TargetError`` when *folder* is a link, somebody else's, or open to others."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise TargetError(
            f"{folder}: is not a folder that only you can use, so the local target puts no sockets there; "
            "remove it, or set STAGEWAY_RUNTIME_DIR to a short path of your own"
        )


def socket_path(runtime: Path, service: str, revision: str) -> Path:
    """Return the Unix socket of a revision."""
    return runtime / (hashlib.sha256(f"{service}/{revision}".encode()).hexdigest()[:16] + ".sock")
