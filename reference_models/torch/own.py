"""Exits for any PyTorch network: images (B, C, H, W), logits (B, num_classes) per exit."""

from __future__ import annotations

import copy
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loss_balance.reference_models.counting.torch import multiply_adds
from loss_balance.reference_models.description.exits import (
    OUTPUT,
    check_head,
    classes_of,
    named,
)
from loss_balance.reference_models.description.inputs import check_images, positions
from loss_balance.reference_models.description.spec import ExitCost
from loss_balance.reference_models.description.weights import Weights, check_fit
from loss_balance.reference_models.torch.heads import Head, head_for
from loss_balance.reference_models.torch.net import (
    Fork,
    Indices,
    on_host,
    placed_as,
    samples,
    wide,
)
from loss_balance.reference_models.torch.segments import OwnSegment
from loss_balance.reference_models.torch.stages import ROOT, Stage, joined, split


def with_exits(
    model: nn.Module,
    exits: Mapping[str, Head] | Sequence[str],
    *,
    input_shape: tuple[int, int, int] | None = None,
) -> MultiExitNet:
    """`model` with an exit after each named module; its own output is the last exit.

    ::

        net = with_exits(timm.create_model("resnet18"), ["layer1", "layer2", "layer3"])
        losses = [F.cross_entropy(logits, labels) for logits in net(images)]

    Its modules, and so its weights, stay what they are and where they are. Nothing is hooked in:
    the network is cut into stages, so that an answer at one exit computes nothing deeper.

    Args:
        model: takes images (B, C, H, W) alone and returns logits (B, num_classes).
        exits: names of modules as in `model.named_modules()` in order of computation, such as
            `layer2` or `blocks.5`, each with its head: a module that takes the named one's output
            (a lazy one is fine), a function of that output's shape without the batch that returns
            one, or None for `default_head`. A sequence of names has default heads.
        input_shape: (height, width, channels) of an image; default: what a model of timm says of
            itself, else (224, 224, 3).

    Raises:
        ValueError: `exits` do not fit the model (`stages.split` says how), or a head the logits.
    """
    return MultiExitNet(model, named(exits), input_shape or _native_shape(model))


class MultiExitNet(nn.Module):
    """What `with_exits` makes. Submodules: `backbone`, the model, and `heads`, a list.

    Attributes:
        names: of the exits; that of the model's own output, the last one, is `output`.
        input_shape: (height, width, channels).
        num_classes: logits per exit.
    """

    framework = "torch"
    _only: int | None  # the one exit that is left

    def __init__(
        self, model: nn.Module, heads: Mapping[str, Head], input_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.training: bool = model.training
        self.backbone = model
        self.names: tuple[str, ...] = (*heads, OUTPUT)
        self.input_shape = input_shape
        self._split_at, self._only = self.names[:-1], None
        self._stages = self._staged()
        self._costs: tuple[ExitCost, ...] | None = None
        self.heads: nn.ModuleList = nn.ModuleList()
        self._make_heads(list(heads.values()))

    def _make_heads(self, wanted: Sequence[Head]) -> None:
        with _evaluating(self):
            features = []
            tensors: tuple[Tensor, ...] = (self._image(),)
            for stage in self._stages[False]:
                tensors = stage(self, *tensors)
                _check_handed(tensors)
                features.append(tensors[0])
            *read, logits = features
            self.num_classes: int = classes_of(logits)
            for name, head, x in zip(self.names, wanted, read, strict=False):
                made = head_for(name, head, tuple(x.shape[1:]), self.num_classes).to(x.device)
                found = made.eval()(x)  # fills lazy ones too
                check_head(name, found, self.num_classes)
                self.heads.append(made.train(self.training))

    def forward(self, x: Tensor, fork: Fork | None = None) -> list[Tensor]:
        """Logits (B, num_classes) of every exit, for images (B, C, H, W).

        Args:
            x: the images.
            fork: `balance.fork` of a balancer in equilibrium, called where each exit branches off;
                the last one where the exit before it did.
        """
        check_images(x.shape, self.input_shape, channels_first=True)
        return list(self._answers(x, fork))

    def anytime(self, x: Tensor) -> Generator[Tensor, Indices | None]:
        """The answers of a call, one exit at a time; nothing beyond those consumed is computed.

        `answers.send(kept)` goes on with those samples alone, positions in the current batch, and
        returns the next logits.
        """
        check_images(x.shape, self.input_shape, channels_first=True)
        return self._answers(x)

    def _answers(self, x: Tensor, fork: Fork | None = None) -> Generator[Tensor, Indices | None]:
        tensors: Any = (x,)
        for k, (stage, head) in enumerate(self._stretches()):
            if fork is not None and head is None:
                tensors = _listed(fork(_alone(tensors), k)[0])
            tensors = stage(self, *tensors)
            read = tensors[0]
            if fork is not None and head is not None:
                branch, on = fork(_alone(tensors), k)
                read, tensors = _listed(branch)[0], _listed(on)
            logits = read if head is None else head(read)
            kept = yield logits
            if kept is not None:
                chosen = torch.from_numpy(positions(on_host(kept), len(logits))).to(x.device)
                tensors = [samples(tensor, chosen) for tensor in tensors]

    def segments(self) -> list[OwnSegment]:
        """What is computed up to each exit from the one before it, as modules.

        Each takes the tensors that the one before handed on, the first one images (B, C, H, W), as
        positional arguments, and returns (tensors handed on ..., logits), the last one (logits,).
        """
        return [OwnSegment(self, stage, head) for stage, head in self._stretches()]

    def _stretches(self) -> Iterator[tuple[Stage, nn.Module | None]]:
        stages = self._stages[self.training]
        return zip(stages, (*self.heads, None)[: len(stages)], strict=True)

    def single_exit(self, exit_index: int) -> MultiExitNet:
        """The network cut after one exit, with that head alone, sharing its modules.

        What lies behind is never called; `named_weights` and the like leave it out.
        """
        cut = copy.copy(self)
        cut._modules = dict(self._modules)
        cut.names, cut._costs = (self.names[exit_index],), None
        cut.heads = self.heads[exit_index : exit_index + 1]
        cut._only = exit_index if self._only is None else self._only
        cut._stages = cut._staged()
        return cut

    def _staged(self) -> dict[bool, tuple[Stage, ...]]:
        """The stages in each mode; of a network that was cut, one up to the exit that is left."""
        found = _split_in_modes(self.backbone, self._split_at)
        if self._only is None:
            return found
        return {mode: (joined(stages[: self._only + 1]),) for mode, stages in found.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_stages"}

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._stages = self._staged()

    @property
    def units(self) -> list[nn.Module]:
        """The modules that the stages call, for `fully_shard`."""
        names = [name for stage in self._stages[True] for name in stage.uses]
        known = dict(self.backbone.named_modules())
        return [known[name] for name in names if name in known]

    def costs(self) -> tuple[ExitCost, ...]:
        """What each exit takes, all earlier heads included, as of the reference networks.

        Multiply-adds per image of convolutions and matrix products alone, as PyTorch counts them in
        evaluation mode; parameters that were trainable when this was first asked, each once.
        """
        if self._costs is None:
            self._costs = tuple(self._measured())
        return self._costs

    def _measured(self) -> Iterator[ExitCost]:
        total, seen = 0, dict[int, int]()
        with _evaluating(self):
            tensors: Sequence[Tensor] = (self._image(),)
            for segment in self.segments():
                total += multiply_adds(segment, *tensors)
                *tensors, _ = segment(*tensors)
                seen |= {id(p): p.numel() for p in segment.parameters_used() if p.requires_grad}
                yield ExitCost(total, sum(seen.values()))

    def _image(self) -> Tensor:
        height, width, channels = self.input_shape
        first = next(self.backbone.parameters())
        return torch.zeros(1, channels, height, width, device=first.device, dtype=first.dtype)

    def named_weights(self) -> dict[str, Tensor]:
        """The parameters and floating buffers under their own names, not copied."""
        used = {f"{ROOT}.{name}" for stage in self._stages[True] for name in stage.uses}
        named = self.state_dict(keep_vars=True)
        return {
            name: tensor
            for name, tensor in named.items()
            if tensor.is_floating_point() and (name.startswith("heads.") or _within(name, used))
        }

    def trained_names(self) -> set[str]:
        """Which of them are trained."""
        named = self.named_weights()
        return {name for name, tensor in named.items() if tensor.requires_grad}

    def dump_weights(self) -> Weights:
        """Copies of all weights by name, in PyTorch's own layouts, in float32 or wider."""
        return {name: np.array(wide(tensor)) for name, tensor in self.named_weights().items()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Takes what `dump_weights` gave.

        Raises:
            ValueError: names or shapes do not fit, all in one message; nothing is changed then.
        """
        own = self.named_weights()
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        check_fit("the network", shapes, {name: np.shape(w) for name, w in weights.items()})
        for name, tensor in own.items():
            given = torch.from_numpy(np.array(weights[name]))
            tensor.copy_(placed_as(tensor, given.to(tensor.dtype)))


def _split_in_modes(model: nn.Module, names: Sequence[str]) -> dict[bool, tuple[Stage, ...]]:
    """The stages in training and, at False, in evaluation."""
    found = {}
    with _modes_kept(model):
        for training in (True, False):
            found[training] = split(model.train(training), names)
    return found


@contextmanager
def _modes_kept(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    with _modes_kept(module), torch.no_grad():
        module.eval()
        yield


def _within(name: str, modules: Collection[str]) -> bool:
    """Whether it is one of them or of something in them."""
    parts = name.split(".")
    return any(".".join(parts[: n + 1]) in modules for n in range(len(parts)))


def _check_handed(tensors: Sequence[Any]) -> None:
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) != 1:
            raise ValueError(
                "what crosses an exit must be tensors of the batch, or samples could not leave it, "
                f"got {tuple(tensor.shape) if isinstance(tensor, Tensor) else repr(tensor)} for "
                "one image"
            )


def _native_shape(model: nn.Module) -> tuple[int, int, int]:
    size = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))
    return size[1], size[2], size[0]


def _alone(tensors: Sequence[Tensor]) -> Any:
    """A single tensor as itself, several as a list."""
    return tensors[0] if len(tensors) == 1 else list(tensors)


def _listed(tensors: Any) -> Any:
    return tensors if isinstance(tensors, (list, tuple)) else [tensors]
