"""Images: a model version and a serve config made into content-addressed layers, and a bundle that names them."""

from stageway.images.build import build
from stageway.images.environment import environment

__all__ = ["build", "environment"]
