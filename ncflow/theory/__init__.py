"""The papers' theory as functions."""
