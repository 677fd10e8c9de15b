"""What a training command is asked for, and the runs that this means.

`Options` has the one text of each option; the commands show its fields (`commands.options`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from loss_balance.checks import check_count, check_range
from loss_balance.equilibrium import STRENGTH
from loss_balance.experiments.data.augment import AUGMENTATIONS
from loss_balance.experiments.data.sources import NAMES, Dataset, Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.engine import FRAMEWORKS, Engine, choose_engine
from loss_balance.experiments.training.recipes import RECIPES
from loss_balance.reference_models import families
from loss_balance.schemes.adaloss import AdaLoss

TRAINING, ADALOSS, GUIDANCE = "Training", "AdaLoss", "Guidance"  # panels of the help


def _option(default: Any, text: str, panel: str | None = None, **shown: Any) -> Any:
    """A field with what the help says of it: `flags` (how it is written) and `show_default`."""
    return field(default=default, metadata={"help": text, "panel": panel, **shown})


def _per_data(name: str) -> str:
    """The default of a recipe's field: the usual one, and the data sets with another."""
    values = {data: getattr(recipe, name) for data, recipe in RECIPES.items()}
    usual = Counter(values.values()).most_common(1)[0][0]
    each = ", ".join(f"{data} {value}" for data, value in values.items() if value != usual)
    return f"Default: {usual}; {each}."


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained and how, as the user says it; a new option is one field.

    Those of the panel AdaLoss are hyperparameters of it, by name; None leaves it its own default.
    """

    framework: str = _option(
        "torch",
        f"What to train in: {', '.join(FRAMEWORKS)}.",
        flags=("--framework", "--backend"),  # the second one is its name in 0.1
    )
    data: str = _option("digit-pairs", f"Data set: {', '.join(NAMES)}.")
    path: Path | None = _option(  # noqa: RUF009 (a field)
        None,
        "Where its files are. An npz has x_train, y_train, x_test, y_test; images (N, H, W, C).",
        show_default=False,
    )
    download: bool = _option(False, "Fetch what is missing at --path.", flags=("--download",))
    validation: bool = _option(
        False,
        "Test on the last tenth of the training images, 5,000 at most.",
        flags=("--validation",),
    )
    augment: str | None = _option(
        None,
        f"What happens to training images: {', '.join(AUGMENTATIONS)}.",
        show_default="the data set's own way",
    )
    epochs: int | None = _option(None, _per_data("epochs"), TRAINING)
    learning_rate: float | None = _option(None, _per_data("learning_rate"), TRAINING)
    batch_size: int | None = _option(None, _per_data("batch_size"), TRAINING)
    seeds: int = _option(1, "Runs per scheme: seeds 0, 1, ...", TRAINING)
    device: str = _option("cpu", "cpu or cuda.", TRAINING)
    precision: str | None = _option(
        None, "float32 or bfloat16.", TRAINING, show_default="bfloat16 on cuda"
    )
    compiled: bool | None = _option(
        None,
        "Compile the training step (torch, and XLA for tensorflow).",
        TRAINING,
        flags=("--compile/--no-compile",),
        show_default="on cuda",
    )
    gamma: float | None = _option(AdaLoss.gamma, "Share of constant weights.", ADALOSS)
    decay: float | None = _option(AdaLoss.decay, "Of the running means, below 1.", ADALOSS)
    final_weight: float | None = _option(AdaLoss.final_weight, "Factor for the last exit.", ADALOSS)

    guidance: float = _option(
        STRENGTH, "How strongly exits learn from the last one in guided.", GUIDANCE
    )

    def engine(self) -> Engine:
        """What the runs compute in; UserError if a name is unknown or it is not installed."""
        return choose_engine(self.framework, self.device, self.precision, self.compiled)

    def source(self) -> Source:
        """Where the images come from."""
        return Source(self.data, self.path, self.validation, self.augment)

    def load(self) -> Dataset:
        """The images; UserError as of `sources.load`, or as of `engine`, before it takes time."""
        self.engine()
        return self.source().load(download=self.download)

    def adaloss(self, num_losses: int) -> AdaLoss:
        """AdaLoss as asked for; ValueError if a hyperparameter is out of its range."""
        given = {f.name: getattr(self, f.name) for f in of_panel(ADALOSS)}
        return AdaLoss(num_losses, **{k: v for k, v in given.items() if v is not None})


def of_panel(panel: str) -> list[Field[Any]]:
    """The options that the help shows together."""
    return [f for f in fields(Options) if f.metadata["panel"] == panel]


def plan(options: Options, network: str, schemes: tuple[str, ...], data: Dataset) -> Comparison:
    """The comparison that the options describe; UserError where they do not fit the data."""
    recipe = RECIPES[options.data]
    changed = {
        name: value
        for name in ("epochs", "learning_rate", "batch_size")
        if (value := getattr(options, name)) is not None
    }
    try:
        check_count("seeds", options.seeds)
        check_range("guidance", options.guidance, 0.0, 1.0, open_low=True)  # at 0 it guides nobody
        spec = families.get(network, num_classes=data.num_classes, input_shape=data.input_shape)
        return Comparison(
            spec=spec,
            recipe=replace(recipe, **changed),
            source=options.source(),
            fingerprint=data.fingerprint(),
            schemes=schemes,
            seeds=tuple(range(options.seeds)),
            adaloss=options.adaloss(len(spec.exits)),
            images=len(data.y_train),
            engine=options.engine(),
            guidance=options.guidance,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def config_of(options: Options, comparison: Comparison, **more: Any) -> dict[str, Any]:
    """What `config.json` of a command keeps: equal ones train the same runs."""
    computing, source = asdict(comparison.engine), comparison.source.config()
    recipe, adaloss = comparison.recipe, comparison.adaloss
    return {
        "framework": computing.pop("framework"),
        **computing,
        "data": source.pop("name"),
        **source,
        "network": comparison.spec.name,
        "schemes": list(comparison.schemes),
        "epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "batch_size": recipe.batch_size,
        "seeds": options.seeds,
        **{f.name: getattr(adaloss, f.name) for f in of_panel(ADALOSS)},
        "guidance": comparison.guidance,
        "data_fingerprint": comparison.fingerprint,
        **more,
    }
