"""The target ``local``: a process per revision on this machine, behind a stable port of a detached keeper.

``LocalTarget`` is the client's side; it is imported when its name is used, so that the keeper, which lives in this
folder too, stays small: it never sees the engine's models, store or registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stageway.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]


def __getattr__(name: str) -> Any:
    if name == "LocalTarget":
        from stageway.targets.local.target import LocalTarget

        return LocalTarget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
