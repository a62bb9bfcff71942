"""Stands in for ``azureml.core``; its modules are what scripts need."""
