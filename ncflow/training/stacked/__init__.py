"""Train many runs of one architecture as a single model with a leading axis of runs, the cells."""
