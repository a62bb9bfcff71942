"""Kinds of places where releases run, each behind the contract in base.py."""
