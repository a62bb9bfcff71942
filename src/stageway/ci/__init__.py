"""What CI systems need of Stageway: the tasks' action and step files, and outputs in each system's own format."""
