"""From a config to what a run is, checked, and to the objects that it names."""
