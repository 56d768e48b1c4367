"""A folder a paper: its figures and its claims."""
