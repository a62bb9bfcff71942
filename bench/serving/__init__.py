"""The scoring server beside its peers: ``python -m bench.serving --help``."""
