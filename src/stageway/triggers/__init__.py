"""Sources of events that start a pipeline, each behind the contract in base.py."""
