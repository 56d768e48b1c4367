"""Where runs of a sweep stand, and how they get onto a cluster."""
