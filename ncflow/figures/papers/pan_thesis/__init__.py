"""The thesis of Pan on neural collapse and batch normalisation."""
