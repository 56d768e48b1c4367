"""The page of a set of runs, and its copy on W&B."""
