"""Zhao, Cheng, Masarczyk and Lucchi, Optimizer choice matters for the emergence of Neural Collapse (ICLR 2026)."""
