"""Stands in for ``inference_schema.parameter_types``: one module for each kind of sample."""
