"""Train a run, or many as one."""
