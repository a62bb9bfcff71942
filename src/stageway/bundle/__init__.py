"""A bundle: the unpacked layers of one image, and how a service is started on them.

``images`` makes bundles; targets, profiling and packaging run them. ``bundle.trial`` starts one for a short while.
"""

from stageway.bundle.bundle import CONTENT, Bundle, Launch, check_variables
from stageway.bundle.manifest import ACCELERATED, MODELS, Manifest, ModelPlace

__all__ = ["ACCELERATED", "CONTENT", "MODELS", "Bundle", "Launch", "Manifest", "ModelPlace", "check_variables"]
