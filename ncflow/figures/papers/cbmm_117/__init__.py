"""CBMM Memo 117 (2021): Rangamani, Xu, Banburski, Liao, Poggio, on deep classifiers and the square loss."""
