"""Data sets as NumPy arrays or streams, the same for every framework."""
