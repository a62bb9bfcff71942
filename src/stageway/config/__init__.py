"""Configuration becomes types at the door: ``stageway.yml`` and the environment, read into ``specs``."""
