"""A model and a loader in, rows of measures out."""
