"""Stands in for ``azureml.contrib.services``; its modules are what scripts need."""
