"""The scoring server: the one part of Stageway that goes into an image, next to the user's code.

It stands apart: it imports ``stageway.errors`` and ``stageway.contract``, the packages below, and what the model needs;
Python 3.9 and later. Images and bundles resolve ``REQUIREMENTS`` together with the user's own, and of ``FEATURES``
what a stage asks for.
"""

REQUIREMENTS = (
    # How workers are started and replaced is granian's own affair, so a new one is tried before it is taken.
    'granian>=2.7,<2.9; python_version >= "3.10"',
    # The last line for Python 3.9.
    'granian>=2.5.7,<2.6; python_version < "3.10"',
    "orjson>=3.10,<4",
    "prometheus-client>=0.20,<1",
    # A tenth more requests from many connections, a fifth more from one (docs/performance.md).
    'uvloop>=0.19,<1; sys_platform != "win32"',
    # Long bodies of numbers in half the time; it has no wheels for newer ones yet.
    'pysimdjson>=6,<8; python_version < "3.14"',
)

FEATURES = {
    "auth": ("pyjwt[crypto]>=2.10,<3",),
    "collect": ("pyarrow>=16",),
    "telemetry": ("opentelemetry-sdk>=1.25,<2", "opentelemetry-exporter-otlp-proto-http>=1.25,<2"),
}
"""Packages by the key of a stage in ``stageway.yml`` that needs them. (Keys need none; tokens do.)"""
