"""The command line: it only unpacks, calls and prints."""
