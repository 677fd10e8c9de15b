"""Runs as files for deployment, and those read back."""
