"""Weights that no framework owns: arrays under the spec's names, drawn, checked, saved, loaded."""

from loss_balance.reference_models.description.weights import (
    Weights,
    check,
    initialise,
    load,
    save,
)

__all__ = ["Weights", "check", "initialise", "load", "save"]
