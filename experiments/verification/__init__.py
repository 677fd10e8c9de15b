"""Proof that all frameworks compute the same."""
