"""The study's results as tables."""

from __future__ import annotations


def table(results):
    return ""
