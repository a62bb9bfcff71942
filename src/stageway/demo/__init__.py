"""The demo: four versions of a model on their way, told while it happens. Everything goes through the public doors."""

from stageway.demo.story import Told, run, tell

__all__ = ["Told", "run", "tell"]
