"""Say what this machine can do, and name the command that would supply what is missing.

Nothing is changed and nobody is waited for: every question to a service ends after a few seconds.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from platformdirs import user_cache_path

from stageway import __version__, plugins
from stageway.config.workspace import Workspace
from stageway.errors import ConfigError

PATIENCE = 3.0
"""Seconds that a service has to answer."""

ROOM = 2 * 2**30
"""Free bytes below which an environment may not fit: scikit-learn's layers take 0.5 GiB, twice while unpacking."""

DOCKER_SOCKETS = (Path("/var/run/docker.sock"), Path("~/.docker/run/docker.sock").expanduser())


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. *supplies* is the command or setting that would put it right."""

    name: str
    ok: bool
    says: str
    supplies: str = ""


def examine(workspace: Workspace | None, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Look at this machine, and at *workspace* where there is one."""
    cache = workspace.cache if workspace else Path(environ.get("STAGEWAY_CACHE") or user_cache_path("stageway"))
    looks: list[Callable[[], Finding]] = [
        _python,
        _platform,
        _versions,
        _git,
        _uv,
        lambda: _folder("cache", cache),
        *([lambda: _folder("workspace", workspace.root)] if workspace else []),
        lambda: _docker(environ),
        lambda: _kubernetes(environ),
        *([lambda: _registry(workspace), lambda: _database(workspace)] if workspace else []),
        _plugins,
    ]
    with ThreadPoolExecutor(max_workers=len(looks)) as pool:
        return [answer.result() for answer in [pool.submit(look) for look in looks]]


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding(
        "Python", ok, f"{platform.python_version()} in {sys.prefix}", "" if ok else "use Python 3.11 or later"
    )


def _platform() -> Finding:
    says = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    ok = sys.platform in ("linux", "darwin")
    return Finding("platform", ok, says, "" if ok else "on Windows, run Stageway inside WSL2")


def _versions() -> Finding:
    found = {}
    for name in ("mlflow", "granian", "pydantic", "sqlalchemy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            return Finding(
                "versions", False, f"{name} is not installed", "install stageway again: pip install --force-reinstall ."
            )
    return Finding("versions", True, f"stageway {__version__}, " + ", ".join(" ".join(one) for one in found.items()))


def _git() -> Finding:
    return _program("git", shutil.which("git"), "install git (apt-get install git, or brew install git)")


def _uv() -> Finding:
    supplies = "install stageway again; it brings uv (or: pip install uv)"
    try:
        import uv

        return _program("uv", uv.find_uv_bin(), supplies)
    except (ImportError, FileNotFoundError):
        return _program("uv", shutil.which("uv"), supplies)


def _program(name: str, path: str | None, supplies: str) -> Finding:
    if path is None:
        return Finding(name, False, "not found on PATH", supplies)
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, False, f"{path} does not run: {error}", supplies)
    if done.returncode != 0:
        return Finding(name, False, f"{path} --version ended with {done.returncode}", supplies)
    return Finding(name, True, done.stdout.strip().removeprefix(f"{name} version ").removeprefix(f"{name} "))


def _folder(name: str, folder: Path) -> Finding:
    """Look whether *folder* (or what will hold it) can be written, and how much fits."""
    setting = "STAGEWAY_CACHE=FOLDER" if name == "cache" else "a copy of the project elsewhere"
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        supplies = f"make it writable (chmod u+rwx {place}), or use {setting}"
        return Finding(name, False, f"{folder} cannot be written: {error.strerror}", supplies)
    says = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < ROOM:
        return Finding(name, False, says, f"free {ROOM / 2**30:.0f} GiB there, or use {setting}")
    return Finding(name, True, says)


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def _docker(environ: Mapping[str, str]) -> Finding:
    there = next((one for one in DOCKER_SOCKETS if one.exists()), DOCKER_SOCKETS[0])
    address = environ.get("DOCKER_HOST") or f"unix://{there}"
    supplies = "start Docker Engine (apt-get install docker.io), or set DOCKER_HOST; only the target docker needs it"
    parts = urlsplit(address)
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "unix":
            connection = _SocketConnection(parts.path)
        elif parts.scheme in ("tcp", "http") and not environ.get("DOCKER_TLS_VERIFY"):
            connection = http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 2375, timeout=PATIENCE)
        else:
            return Finding("Docker", False, f"DOCKER_HOST={address} is not examined", "try `docker version`")
        try:
            connection.request("GET", "/version")
            reply = connection.getresponse()
            body = reply.read(100_000)
        finally:
            connection.close()
        if reply.status != 200:
            return Finding("Docker", False, f"{address} answers {reply.status}", supplies)
        found = _mapping(body)
        return Finding("Docker", True, f"Engine {found.get('Version', '?')} at {address}")
    except PermissionError:
        return Finding("Docker", False, f"{address} may not be used", "usermod -aG docker $USER, then log in again")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Finding("Docker", False, f"{address} does not answer: {_why(error)}", supplies)


def _kubernetes(environ: Mapping[str, str]) -> Finding:
    supplies = "set KUBECONFIG to a cluster's file; only the target kubernetes needs it"
    named = environ.get("KUBECONFIG")
    files = [Path(one) for one in named.split(os.pathsep) if one] if named else [Path.home() / ".kube" / "config"]
    file = next((one for one in files if one.is_file()), None)
    if file is None:
        return Finding("Kubernetes", False, f"no {' or '.join(str(one) for one in files)}", supplies)
    try:
        name, server, context = _cluster(file)
    except (OSError, ValueError) as error:
        return Finding("Kubernetes", False, f"{file} is not usable: {_why(error)}", supplies)
    try:
        # The cluster's address comes from a file that its owner trusts with more than this.
        with urllib.request.urlopen(f"{server}/version", timeout=PATIENCE, context=context) as reply:  # noqa: S310
            found = _mapping(reply.read(100_000))
        return Finding("Kubernetes", True, f"{found.get('gitVersion', 'a cluster')} at {server} ({name})")
    except urllib.error.HTTPError as error:
        with error:
            return Finding("Kubernetes", True, f"{server} ({name}) answers {error.code} to a stranger")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Finding(
            "Kubernetes", False, f"{server} ({name}) does not answer: {_why(error)}", f"start it, or {supplies}"
        )


def _cluster(file: Path) -> tuple[str, str, ssl.SSLContext | None]:
    """Return context name, address and TLS settings of *file*'s current context. Raises ``ValueError``."""
    import yaml

    try:
        found = yaml.safe_load(file.read_bytes())
        name = found["current-context"]
        context = next(one["context"] for one in found["contexts"] if one["name"] == name)
        cluster = next(one["cluster"] for one in found["clusters"] if one["name"] == context["cluster"])
        server = str(cluster["server"]).rstrip("/")
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise ValueError("no current context with a cluster") from error
    if urlsplit(server).scheme not in ("http", "https"):
        raise ValueError(f"{server!r} is not an address")
    if not server.startswith("https:"):
        return name, server, None
    data = cluster.get("certificate-authority-data")
    path = cluster.get("certificate-authority")
    tls = ssl.create_default_context(
        cadata=base64.b64decode(data, validate=True).decode() if data else None,
        cafile=str(file.parent / path) if path else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return name, server, tls


def _registry(workspace: Workspace) -> Finding:
    if workspace.embedded_registry:
        return Finding("registry", True, "MLflow on SQLite in .stageway/")
    shown = workspace.registry_identity
    if not workspace.registry_uri.startswith(("http://", "https://")):
        return Finding("registry", True, f"{shown} (not a server; opened when it is used)")
    import requests

    supplies = "start it (mlflow server), or set MLFLOW_TRACKING_URI or workspace.registry in stageway.yml"
    try:
        reply = requests.get(workspace.registry_uri.rstrip("/") + "/health", timeout=PATIENCE)
    except requests.RequestException as error:
        return Finding("registry", False, f"{shown} does not answer: {type(error).__name__}", supplies)
    if reply.status_code >= 500:
        return Finding("registry", False, f"{shown} answers {reply.status_code}", supplies)
    return Finding("registry", True, f"{shown} answers")


def _database(workspace: Workspace) -> Finding:
    address = workspace.database_url
    parts = urlsplit(address)
    if parts.scheme.startswith("sqlite"):
        path = Path(parts.path[1:])
        return Finding("database", True, f"SQLite, {path}" + ("" if path.exists() else " (made when it is used)"))
    socket_folder = parse_qs(parts.query).get("host", ["localhost"])[0]
    place = f"{parts.hostname}:{parts.port or 5432}" if parts.hostname else socket_folder
    shown = f"{parts.scheme.partition('+')[0]} {parts.path.lstrip('/')!r} at {place}"
    if not parts.scheme.startswith("postgresql"):
        return Finding("database", False, f"{shown} is of a kind we do not know", "use sqlite:/// or postgresql://")
    if importlib.util.find_spec("psycopg") is None:
        return Finding("database", False, f"{shown} needs psycopg", "pip install 'stageway[postgresql]'")
    import psycopg

    try:
        plain = parts._replace(scheme="postgresql").geturl()
        with psycopg.connect(plain, connect_timeout=int(PATIENCE)) as connection:
            return Finding("database", True, f"{shown}, version {connection.info.server_version // 10000}")
    except (psycopg.Error, UnicodeError) as error:
        supplies = "start it, or set STAGEWAY_DATABASE_URL or workspace.database in stageway.yml"
        return Finding("database", False, f"{shown} does not answer: {_why(error)}", supplies)


def _plugins() -> Finding:
    """Count what is installed, and load what others brought: theirs may be broken, ours are tested."""
    counts, broken = [], []
    for kind in plugins.KINDS:
        found = plugins.found(kind)
        counts.append(f"{kind}: {', '.join(found) or 'none'}")
        for name, point in found.items():
            if point.dist is not None and point.dist.name == "stageway":
                continue
            try:
                plugins.load(kind, name)
            except ConfigError as error:
                broken.append(error.message)
            except Exception as error:  # noqa: BLE001 - other people's code runs here
                broken.append(f"{kind} {name!r} cannot be loaded: {_why(error)}")
    if broken:
        return Finding("plug-ins", False, "; ".join(broken), "update or uninstall what brought them")
    return Finding("plug-ins", True, "; ".join(counts))


def _mapping(body: bytes) -> dict[str, Any]:
    """Return the JSON object *body*. Raises ``ValueError``."""
    import json

    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("the answer is not an object")
    return found


def _why(error: BaseException) -> str:
    """Say *error* in one line."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _why(reason)
    reason = reason or getattr(error, "strerror", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
