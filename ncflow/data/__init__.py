"""Data sets as LightningDataModules whose tensors stay in memory on the training device."""
