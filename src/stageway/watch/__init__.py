"""Watch triggers, and work on what they start."""
