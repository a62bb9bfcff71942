"""Profiling: what one release needs, measured on its real service."""

from stageway.profiling.measure import measure

__all__ = ["measure"]
