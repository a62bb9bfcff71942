"""The interpreter and the platform that services run on here: those of the engine, without its packages."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Mapping

PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")
"""All that a service gets of its caller's environment. Secrets of the caller are not among it."""


def interpreter() -> str:
    """Return the base interpreter: nothing of the engine's own virtual environment reaches a service."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def platform_name() -> str:
    """Return the name of what wheels are chosen by, such as ``linux-x86_64``; musl is told from glibc."""
    name = sysconfig.get_platform()
    if sys.platform == "linux" and platform.libc_ver()[0] != "glibc":
        name += "-musl"
    return name


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the few variables of *environ* that a service gets."""
    kept = {name: environ[name] for name in PASSED_ON if environ.get(name)}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **kept}
