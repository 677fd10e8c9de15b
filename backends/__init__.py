"""Thin adapters, one per framework: state, casting, detaching and device sync, no formula.

Nothing is imported here: `from loss_balance.backends.torch import Balancer` loads torch alone.
"""
