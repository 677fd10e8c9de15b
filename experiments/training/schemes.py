"""The schemes that the commands know: name, class, and how one is made.

A new scheme is one entry of SCHEMES.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from loss_balance.backends.interface import scheme_config, scheme_from_config
from loss_balance.checks import check_range
from loss_balance.equilibrium import STRENGTH, TEMPERATURE
from loss_balance.schemes.adaloss import AdaLoss, LinearSchedule
from loss_balance.schemes.adaptive import (
    DynamicWeightAverage,
    GradientNorm,
    LogLoss,
    SoftmaxInverse,
    UncertaintyWeighting,
)
from loss_balance.schemes.base import Scheme
from loss_balance.schemes.fixed import Constant, HalfEnd, Linear, Single
from loss_balance.schemes.means import PowerMean, RelativeAdaLoss

OPT = "opt"
HARMONIC = -1.0  # of the power mean in the commands; 0 is AdaLoss's


@dataclass(frozen=True)
class Coupling:
    """How the exits act on the trunk and on each other, beside the weights of their losses.

    Args:
        equilibrium: the weights act on the trunk's gradient in place of the sum of the losses.
        pull: the trunk's shares are of the weights to this power.
        guidance: how strongly exits learn from the last one; 0 is not at all.
        rising: whether the guidance rises to that from 0 over the training.
        temperature: of the guidance.
    """

    equilibrium: bool = False
    pull: float = 1.0
    guidance: float = 0.0
    rising: bool = False
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        check_range("pull", self.pull, 0.0, 1.0)
        check_range("guidance", self.guidance, 0.0)
        check_range("temperature", self.temperature, 0.0, open_low=True)

    def strength(self, steps: int) -> float | LinearSchedule:
        """Of the guidance, over a training of so many steps."""
        return LinearSchedule(0.0, self.guidance, steps) if self.rising else self.guidance


class Kind(NamedTuple):
    """What the commands must know of a scheme."""

    scheme: type[Scheme]
    make: Callable[[AdaLoss, int], Scheme]  # of (AdaLoss as asked for, updates per epoch)
    coupling: Coupling = Coupling()


# The adaptive baselines are scaled so that their largest weight is 1, as AdaLoss's is, since all
# schemes share one recipe.
SCHEMES = {
    "const": Kind(Constant, lambda given, _: Constant(given.num_losses)),
    "linear": Kind(Linear, lambda given, _: Linear(given.num_losses)),
    "half-end": Kind(HalfEnd, lambda given, _: HalfEnd(given.num_losses)),
    "adaloss": Kind(AdaLoss, lambda given, _: given),
    "equilibrium": Kind(AdaLoss, lambda given, _: given, Coupling(equilibrium=True)),
    "guided": Kind(
        AdaLoss,
        lambda given, _: given,
        Coupling(equilibrium=True, pull=0.75, guidance=STRENGTH, rising=True),
    ),
    "log-loss": Kind(LogLoss, lambda given, _: LogLoss(given.num_losses, scaled=True)),
    "uw": Kind(
        UncertaintyWeighting,
        lambda given, _: UncertaintyWeighting(given.num_losses, scaled=True),
    ),
    "uw-so": Kind(SoftmaxInverse, lambda given, _: SoftmaxInverse(given.num_losses, scaled=True)),
    "dwa": Kind(
        DynamicWeightAverage,
        lambda given, epoch: DynamicWeightAverage(given.num_losses, epoch, scaled=True),
    ),
    "gradient-norm": Kind(
        GradientNorm,
        lambda given, _: _like(given, GradientNorm),
        Coupling(equilibrium=True),
    ),
    "power-mean": Kind(PowerMean, lambda given, _: _like(given, PowerMean, power=HARMONIC)),
    "relative": Kind(RelativeAdaLoss, lambda given, _: _like(given, RelativeAdaLoss)),
    OPT: Kind(Single, lambda given, _: Single(given.num_losses)),  # a network per exit
}


def _like(given: AdaLoss, kind: type[Scheme], **more: float) -> Scheme:
    """Of the same hyperparameters; `vars` would have what follows from them too."""
    return kind(**{field.name: getattr(given, field.name) for field in fields(given)}, **more)


def name_of(config: Mapping[str, Any], coupling: Coupling) -> str:
    """What the commands call the scheme of a config; the name of its class if they know none.

    How strongly it guides and at which temperature does not matter.
    """
    kind = str(config["class"])
    asked = coupling.equilibrium, coupling.guidance > 0.0
    for name, known in SCHEMES.items():
        has = known.coupling.equilibrium, known.coupling.guidance > 0.0
        if known.scheme.__name__ == kind and has == asked:
            return name
    return kind


def text_of(config: Mapping[str, Any]) -> str:
    """A scheme's config as people read it, `AdaLoss(num_losses=9, gamma=0.05, ...)`."""
    values = (f"{name}={value!r}" for name, value in config.items() if name != "class")
    return f"{config['class']}({', '.join(values)})"


def modern(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as this version writes it.

    Version 0.1 wrote its `repr`, knew no coupling, and called the framework of a comparison its
    backend. Hyperparameters that came later have their defaults.
    """
    if "backend" in config:
        config = {"framework" if k == "backend" else k: v for k, v in config.items()}
    if "schemes" in config:  # of a comparison
        config = {"guidance": STRENGTH, "set": [], "sweep": [], "batch_norm": "global", **config}
        if isinstance(config.get("seeds"), int):  # seeds were counted, not named
            config = {**config, "seeds": list(range(config["seeds"]))}
    if "scheme" not in config:
        return config
    scheme = config["scheme"]
    scheme = config_of_text(scheme) if isinstance(scheme, str) else scheme
    if "spec" in config:  # of a run
        config = {"coupling": asdict(Coupling()), **config}
        if isinstance(config.get("engine"), dict):
            config["engine"] = {"batch_norm": "global", **config["engine"]}
    with contextlib.suppress(ValueError):  # a class of the user's own that is not imported here
        scheme = scheme_config(scheme_from_config(scheme))
    return {**config, "scheme": scheme}


def config_of_text(text: str) -> dict[str, Any]:
    """The config of `AdaLoss(num_losses=9, gamma=LinearSchedule(...))`; nothing is evaluated.

    Raises:
        ValueError: it is no such text.
    """
    try:
        return _config_of_call(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"a scheme must be CLASS(NAME=VALUE, ...), got {text!r}") from error


def _config_of_call(call: ast.expr) -> dict[str, Any]:
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError("no call with keywords")
    values = {str(keyword.arg): keyword.value for keyword in call.keywords}
    return {"class": call.func.id} | {
        name: _config_of_call(value) if isinstance(value, ast.Call) else ast.literal_eval(value)
        for name, value in values.items()
    }
