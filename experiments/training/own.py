"""Schemes and networks of the user's own, named on the command line as `package.module:object`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import import_module
from inspect import signature
from typing import Any

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.schemes import SCHEMES, Kind
from loss_balance.reference_models import families
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.own import NetSpec, OwnSpec
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


def check_memory(spec: NetSpec) -> None:
    """UserError for a network whose training this machine's memory could not hold."""
    parameters = spec.costs()[-1].parameters
    needed, there = COPIES * 4 * parameters, memory()
    if needed > there:
        raise UserError(
            f"a network must fit into this machine's {there / 1e9:.0f} GB of memory, {spec.name} "
            f"has {parameters:,} parameters and trains in {needed / 1e9:.0f} GB at least"
        )


def network_of(name: str, num_classes: int, input_shape: Shape) -> NetSpec:
    """A network by its name, or by import path an `AnytimeSpec` or a function.

    A function is called with `num_classes` and `input_shape`, (height, width, channels), and with a
    `seed` if it takes one. It returns an `AnytimeSpec`, or what `with_exits` made.

    Raises:
        UserError: there is no such network, or it is for other images or classes.
    """
    if not is_own(name):
        return families.get(name, num_classes=num_classes, input_shape=input_shape)
    own = imported(name)
    spec = own
    if callable(own):
        made = _made(own, num_classes, input_shape, 0)
        spec = _with_cuts(name, made) if _has_exits(made) else made
    if not isinstance(spec, NetSpec):
        raise UserError(
            f"{name} must be an AnytimeSpec, or return one or a network of with_exits, "
            f"got {type(spec).__name__}"
        )
    if (spec.num_classes, spec.input_shape) != (num_classes, input_shape):
        raise UserError(
            f"{name} must have {num_classes} classes and input {input_shape} as the data have, got "
            f"{spec.num_classes} and {spec.input_shape}"
        )
    return spec


def check_trains(spec: NetSpec, framework: str, precision: str) -> None:
    """UserError for a network of another framework, or of a precision that is not its own."""
    if isinstance(spec, AnytimeSpec):
        return
    if spec.framework != framework:
        raise UserError(
            f"{spec.name} is of {spec.framework}, which --framework must name, got {framework}"
        )
    if precision != "float32" and framework != "torch":
        raise UserError(
            f"{spec.name} has the precision it was made with: leave --precision out, "
            f"got {precision}"
        )


def network(spec: NetSpec, framework: str, seed: int, **options: Any) -> Any:
    """The network in its framework, with fresh weights.

    Args:
        spec: what to build.
        framework: "torch", "tensorflow" or "jax".
        seed: of the weights, and where the user's function builds it, of the framework's own
            generator while it does.
        **options: of `AnytimeNet`.

    Raises:
        UserError: the user's function no longer makes that network.
    """
    if isinstance(spec, AnytimeSpec):
        module = import_module(f"loss_balance.reference_models.{framework}")
        return module.AnytimeNet(spec, seed, **options)
    if spec.framework != framework:
        raise UserError(f"{spec.name} is of {spec.framework} and stays there, got {framework}")
    made = _made(imported(spec.name), spec.num_classes, spec.input_shape, seed)
    if _has_exits(made) and spec.only is not None:
        made = made.single_exit(spec.only)
    if not _has_exits(made) or _described(spec.name, made, spec.only) != spec:
        raise UserError(
            f"{spec.name} must make the network that it made for this run, it has "
            "other exits or weights now"
        )
    return made


def _made(function: Any, num_classes: int, input_shape: Shape, seed: int) -> Any:
    given: dict[str, Any] = {"num_classes": num_classes, "input_shape": input_shape}
    if "seed" in signature(function).parameters:
        given["seed"] = seed
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)
    return function(**given)


def _has_exits(made: Any) -> bool:
    return hasattr(made, "trained_names")  # `MultiExitNet` of any framework


def _with_cuts(name: str, net: Any) -> OwnSpec:
    cuts = [_described(name, net.single_exit(k), k) for k in range(len(net.names))]
    return replace(_described(name, net), cuts=tuple(cuts))


def _described(name: str, net: Any, only: int | None = None) -> OwnSpec:
    weights = {key: tuple(value.shape) for key, value in net.dump_weights().items()}
    trained = net.trained_names()
    return OwnSpec(
        name=name,
        framework=net.framework,
        input_shape=tuple(net.input_shape),
        num_classes=net.num_classes,
        names=tuple(net.names),
        exit_costs=tuple(net.costs()),
        trained=tuple((key, shape) for key, shape in weights.items() if key in trained),
        kept=tuple((key, shape) for key, shape in weights.items() if key not in trained),
        only=only,
    )
