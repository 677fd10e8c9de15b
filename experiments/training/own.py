"""Schemes and networks of the user's own, named on the command line as `package.module:object`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.schemes import SCHEMES, Kind
from loss_balance.reference_models import families
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import memory
from loss_balance.schemes.base import Scheme


def is_own(name: str) -> bool:
    """Whether the name is an import path."""
    return ":" in name


def imported(path: str) -> Any:
    """The object at `package.module:object`, looked for in the working directory too.

    Raises:
        UserError: there is none; what the module itself raises is in the message.
    """
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # workers are handed it
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's module may raise anything
        raise UserError(
            f"{path} must be an object as package.module:object, got {type(error).__name__}: "
            f"{error}"
        ) from error
    return found


def kind_of(name: str) -> Kind:
    """What there is to know of a scheme: one of SCHEMES, or a class of the user's own.

    Raises:
        UserError: there is no such scheme.
    """
    if not is_own(name):
        if name not in SCHEMES:
            raise UserError(
                f"unknown scheme {name or '(none given)'}: choose from {', '.join(SCHEMES)}, or "
                "give your own as package.module:Class"
            )
        return SCHEMES[name]
    own = imported(name)
    if not isinstance(own, type) or not issubclass(own, Scheme):
        raise UserError(f"{name} must be a class derived from loss_balance.Scheme, got {own!r}")
    return Kind(own, lambda given, _: own(given.num_losses))  # type: ignore[call-arg]


COPIES = 4  # of the weights while training: they, gradients, momentum, a checkpoint


def check_memory(spec: AnytimeSpec) -> None:
    """UserError for a network whose training this machine's memory could not hold."""
    parameters = spec.costs()[-1].parameters
    needed, there = COPIES * 4 * parameters, memory()
    if needed > there:
        raise UserError(
            f"a network must fit into this machine's {there / 1e9:.0f} GB of memory, {spec.name} "
            f"has {parameters:,} parameters and trains in {needed / 1e9:.0f} GB at least"
        )


def network_of(name: str, num_classes: int, input_shape: Shape) -> AnytimeSpec:
    """A network by its name, or by import path an `AnytimeSpec` or a function that returns one.

    A function is called with `num_classes` and `input_shape`, (height, width, channels).

    Raises:
        UserError: there is no such network, or it is for other images or classes.
    """
    if not is_own(name):
        return families.get(name, num_classes=num_classes, input_shape=input_shape)
    own = imported(name)
    spec = own(num_classes=num_classes, input_shape=input_shape) if callable(own) else own
    if not isinstance(spec, AnytimeSpec):
        raise UserError(f"{name} must be an AnytimeSpec or return one, got {type(spec).__name__}")
    if (spec.num_classes, spec.input_shape) != (num_classes, input_shape):
        raise UserError(
            f"{name} must have {num_classes} classes and input {input_shape} as the data have, got "
            f"{spec.num_classes} and {spec.input_shape}"
        )
    return spec
