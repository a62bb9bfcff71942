"""Stands in for ``azureml.train``; its modules are what scripts need."""
