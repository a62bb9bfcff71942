"""Find and load what entry points name. A plug-in is imported when its name is used, never before.

Kinds: task, target, trigger, gate, registry (entry-point groups ``stageway.tasks`` …). Built-ins use the same door as
third parties.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stageway.errors import ConfigError, StagewayError

KINDS = ("task", "target", "trigger", "gate", "registry")


def _group(kind: str) -> str:
    return "stageway.registries" if kind == "registry" else f"stageway.{kind}s"


@cache
def found(kind: str) -> dict[str, EntryPoint]:
    """Return the entry points of *kind* by name, sorted; of two with one name the first on the path wins."""
    result: dict[str, EntryPoint] = {}
    for point in entry_points(group=_group(kind)):
        result.setdefault(point.name, point)
    return dict(sorted(result.items()))


def names(kind: str) -> list[str]:
    """Return the names that are installed for *kind*, sorted."""
    return list(found(kind))


def load(kind: str, name: str) -> Any:
    """Return the plug-in *name* of *kind*, imported only now. Raises ``ConfigError`` when there is none."""
    point = found(kind).get(name)
    if point is None:
        raise ConfigError(f"no {kind} is called {name!r}; installed: {', '.join(names(kind)) or 'none'}")
    try:
        return point.load()
    except StagewayError:
        raise
    except ImportError as error:
        wheel = point.dist.name if point.dist is not None else point.value
        raise ConfigError(f"{kind} {name!r} from {wheel} does not import: {error}") from error
