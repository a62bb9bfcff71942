"""Stands in for the namespace ``azureml`` where no package of it is installed."""
