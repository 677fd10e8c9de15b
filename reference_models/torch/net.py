"""The reference networks for PyTorch: images (B, C, H, W), logits (B, num_classes) per exit."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loss_balance.reference_models.description.inputs import check_images, positions
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import Weights, check, initialise
from loss_balance.reference_models.torch.checkpoint import recompute, recompute_unit
from loss_balance.reference_models.torch.multiscale import MultiScaleStem
from loss_balance.reference_models.torch.segments import Segment
from loss_balance.reference_models.torch.units import build

Indices = Tensor | NDArray[np.integer[Any]]  # positions in the current batch
Fork = Callable[[Any, int], tuple[Any, Any]]  # (maps, exit) to (what it reads, what goes on)


class AnytimeNet(nn.Module):
    """A network that predicts after several of its units.

    ::

        net = AnytimeNet(families.resann(9, 32))
        losses = [F.cross_entropy(logits, labels) for logits in net(images)]

    Submodules: `stem`, `units` (a list), `exits` (by index of the unit they follow).

    Args:
        spec: what to build.
        seed: of the first weights, `weights.initialise(spec, seed)`. On the meta device none are
            drawn.
        checkpoint: keep of each part only what it passes on, and compute the part once more in the
            backward pass. A step takes longer and, in deep DenseANNs and MSDNets, a fraction of the
            memory. Logits, gradients and running statistics stay as they are.
    """

    def __init__(self, spec: AnytimeSpec, seed: int = 0, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.checkpoint = checkpoint
        device = torch.get_default_device()
        with torch.device("meta"):  # PyTorch would draw weights of its own first
            self.stem: nn.Module = build(spec.stem)
            self.units: nn.ModuleList = nn.ModuleList(build(unit) for unit in spec.units)
            heads = zip(spec.exits, spec.heads, strict=True)
            self.exits: nn.ModuleDict = nn.ModuleDict(
                {str(unit): build(head) for unit, head in heads}
            )
        if device.type != "meta":
            self.to_empty(device=device)
            for norm in self.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.reset_running_stats()  # the count of batches is no weight
            self.load_weights(initialise(spec, seed))

    def forward(self, x: Tensor, fork: Fork | None = None) -> list[Tensor]:
        """Logits (B, num_classes) of every exit, for images (B, C, H, W).

        Args:
            x: the images.
            fork: `balance.fork` of a balancer in equilibrium, called where each exit branches off.

        Raises:
            ValueError: images of another shape than the spec's.
        """
        check_images(x.shape, self.spec.input_shape, channels_first=True)
        return list(self._answers(x, fork))

    def anytime(self, x: Tensor) -> Generator[Tensor, Indices | None]:
        """The answers of a call, one exit at a time; nothing beyond those consumed is computed.

        `answers.send(kept)` goes on with those samples alone, positions in the current batch, and
        returns the next logits.

        Raises:
            ValueError: images of another shape than the spec's; sent, what are no positions in the
                current batch.
        """
        check_images(x.shape, self.spec.input_shape, channels_first=True)
        return self._answers(x)

    def _answers(self, x: Tensor, fork: Fork | None = None) -> Generator[Tensor, Indices | None]:
        again = self.checkpoint and torch.is_grad_enabled()
        run_unit, run_head = (recompute_unit, recompute) if again else (_run, _run)
        features = run_unit(self.stem, x)
        for i, unit in enumerate(self.units):
            features = run_unit(unit, features)
            if str(i) in self.exits:
                read = features
                if fork is not None:
                    read, features = fork(features, self.spec.exits.index(i))
                coarsest = read[-1] if isinstance(read, list) else read
                logits = run_head(self.exits[str(i)], coarsest)
                kept = yield logits
                if kept is not None:
                    chosen = torch.from_numpy(positions(on_host(kept), len(logits)))
                    features = samples(features, chosen.to(x.device))

    def segments(self) -> list[nn.Module]:
        """What is computed up to each exit from the one before it; the parts are the network's.

        The first one takes images (B, C, H, W), each other one the maps that the one before handed
        on, as positional arguments; each returns (maps ..., logits), the last one (logits,).

        Raises:
            ValueError: the network is in training mode, or a part of it is.
        """
        if any(module.training for module in self.modules()):
            raise ValueError("segments are of a network in evaluation mode: call net.eval() first")
        several = isinstance(self.stem, MultiScaleStem)
        between: list[nn.Module] = [self.stem]
        segments: list[nn.Module] = []
        for i, unit in enumerate(self.units):
            between.append(unit)
            if str(i) in self.exits:
                listed, last = several and bool(segments), i == len(self.units) - 1
                head = self.exits[str(i)]
                segments.append(Segment(between, head, listed=listed, last=last))
                between = []
        return segments

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Takes arrays under the spec's names and in its layouts, from any framework.

        Raises:
            ValueError: names or shapes do not fit, all in one message; nothing is changed then.
        """
        check(self.spec, weights)
        own = self.named_weights()
        given = {name: _to_torch(np.asarray(weights[name])) for name in own}
        for name, tensor in own.items():
            tensor.copy_(placed_as(tensor, given[name]))

    def dump_weights(self) -> Weights:
        """Copies of all weights for `load_weights` of any framework, in float32 or wider.

        Of a network under `fully_shard` all processes call it, and `load_weights`, together.
        """
        return {name: to_array(tensor) for name, tensor in self.named_weights().items()}

    def named_weights(self) -> dict[str, Tensor]:
        """The parameters and running statistics under the spec's names, not copied."""
        named = {}
        for name in (*self.spec.parameters(), *self.spec.statistics()):
            part, *layers, field = name.split(".")
            layer = self._part(part).get_submodule(".".join(layers))
            named[name] = getattr(layer, _ATTRIBUTES[field])
        return named

    def _part(self, name: str) -> nn.Module:
        if name.startswith("unit"):
            return self.units[int(name.removeprefix("unit"))]
        if name.startswith("exit"):
            return self.exits[name.removeprefix("exit")]
        return self.stem


_ATTRIBUTES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A copy in the spec's layout (OIHW to HWIO, (out, in) to (in, out)), in float32 or wider."""
    array = wide(tensor)
    return np.array(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T, order="C")


def wide(tensor: Tensor) -> NDArray[Any]:
    """A tensor on the host in float32 or wider, for NumPy has no bfloat16; perhaps not copied."""
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    array: NDArray[Any] = whole(tensor).detach().to("cpu", dtype).numpy()
    return array


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which processes have a part each (`fully_shard`), whole on all of them."""
    full: Any = getattr(tensor, "full_tensor", None)  # a DTensor, whose module is slow to import
    return tensor if full is None else full()


def placed_as(tensor: Tensor, value: Tensor) -> Tensor:
    """The value divided over processes as the tensor is; all of them have it whole."""
    if not hasattr(tensor, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    like: Any = tensor
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _to_torch(array: NDArray[Any]) -> Tensor:
    """The inverse of `to_array`, a copy too; NumPy transposes several times faster."""
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return torch.from_numpy(np.array(array, order="C"))


def _run(part: nn.Module, features: Any) -> Any:
    return part(features)


def on_host(sent: Any) -> Any:
    """Positions where NumPy can look at them; those on a device are waited for."""
    return sent.numpy(force=True) if isinstance(sent, Tensor) else sent


def samples(features: Any, positions: Tensor) -> Any:
    """Some samples of maps, of one scale or several."""
    if isinstance(features, Tensor):
        return features[positions]  # not index_select, which leaves channels_last
    return type(features)(samples(x, positions) for x in features)


def native(images: NDArray[Any]) -> Tensor:
    """Images (B, H, W, C) as PyTorch has them, (B, C, H, W)."""
    return torch.from_numpy(images).permute(0, -1, *range(1, images.ndim - 1))
