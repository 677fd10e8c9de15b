"""Runs as a whole: side by side, finished, shared between commands."""
