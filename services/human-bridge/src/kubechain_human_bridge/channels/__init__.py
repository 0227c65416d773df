"""Ways to a person, one per module."""
