"""Kills, failing disks, damaged files and strange options, each against a run that nothing happened to."""
