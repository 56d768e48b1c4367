"""CBMM Memo 117: Xu, Rangamani, Liao, Galanti, Poggio, Dynamics in deep classifiers (2023)."""
