"""Pan's thesis on neural collapse."""
