"""Model registries, each behind the contract in base.py."""
