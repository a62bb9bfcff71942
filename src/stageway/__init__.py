"""Stageway takes every new version of a model from the registry to production."""

__version__ = "0.1.0"
