"""Stands in for ``azureml.contrib``; its modules are what scripts need."""
