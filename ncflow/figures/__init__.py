"""Figures and verdicts from runs on disk."""
