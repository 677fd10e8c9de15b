"""`python -m loss_balance.experiments` is the `loss-balance` command."""

from __future__ import annotations

from loss_balance.experiments.cli import main

main()
