"""A pipeline is a plan of tasks; a run is its execution for one version, written in a journal."""
