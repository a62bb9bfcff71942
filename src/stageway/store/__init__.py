"""The workspace's state: what ran, what is where, who decided what. ``open(workspace)`` is the one door.

SQLAlchemy is imported when the store is opened, so that ``import stageway.store`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stageway.config.workspace import Workspace

if TYPE_CHECKING:
    from stageway.store.store import Store

__all__ = ["Store", "open"]


def open(workspace: Workspace) -> Store:
    """Open the workspace's database, made or brought up to date when needed. Also a context manager.

    Raises ``StoreError`` for one that cannot be used (read-only, full, from a newer Stageway) and ``TryAgainError``
    for one that is locked or away.
    """
    from stageway.store.store import Store

    return Store.open(workspace)


def __getattr__(name: str) -> Any:
    if name == "Store":
        from stageway.store.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
