"""What surrounds a run: environment, processes, signals, progress, W&B."""
