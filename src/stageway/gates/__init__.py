"""Judges of evidence, each behind the contract in base.py."""
