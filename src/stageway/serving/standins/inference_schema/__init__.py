"""Stands in for the package ``inference_schema``: what ``run`` takes and gives, declared by samples."""
