"""Weights of timm's pre-activation networks for ours, from their names and shapes alone.

Source: timm's `densenet` (Huang et al. 2017) and `resnetv2` (He et al. 2016, pre-activation). No
timm and no framework is needed: a file of its weights is read with
`safetensors.numpy.load_file`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.reference_models.description.layers import BatchNorm, Conv, Layer, Linear
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.units import (
    BottleneckUnit,
    DenseTransition,
    DenseUnit,
)
from loss_balance.reference_models.description.weights import Weights, check_fit, initialise

_OF_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def weights_from_timm(spec: AnytimeSpec, state: Mapping[str, Any], seed: int = 0) -> Weights:
    """The backbone of a network of timm's as weights of ours, with fresh early heads.

    ::

        state = timm.create_model("densenet169", pretrained=True).state_dict()
        net.load_weights(weights_from_timm(net.spec, state))

    `densenet169` is `denseann169` throughout, so the last exit gives timm's logits. `resnetv2_50`
    and `_101` are `resann50` and `resann101` up to the end of their first stage: from there on
    timm's shortcuts convolve the normalised map, ours the raw one, as the paper's authors have it.
    Those networks then begin near timm's, not equal to it.

    Args:
        spec: of a DenseANN or ResANN for ILSVRC.
        state: timm's `state_dict()`: PyTorch's tensors on the CPU, or arrays.
        seed: of the other heads, and of the last one where it has another number of classes.

    Raises:
        ValueError: the spec is of another kind, or names or shapes do not fit, all in one message;
            timm's first normalisation has a negative scale, which cannot change places with
            the pooling.
    """
    if isinstance(spec.units[0], BottleneckUnit):
        names = dict(_of_resnet(spec))
    elif isinstance(spec.units[0], DenseUnit):
        names = dict(_of_densenet(spec))
    else:
        raise ValueError(f"spec must be a DenseANN or ResANN for ILSVRC, got {spec.name}")
    weights = initialise(spec, seed)
    layers = {
        f"{part}.{name}": layer for part, of in spec.layers().items() for name, layer in of.items()
    }
    state = {name: np.asarray(value) for name, value in state.items()}
    _drop_other_classes(spec, names, state)
    wanted = {
        key: (f"{ours}.{field}", shape)
        for ours, theirs in names.items()
        for key, field, shape in _fields(layers[ours], theirs)
    }
    found = {name: value.shape for name, value in state.items() if name in wanted}
    check_fit(spec.name, {name: shape for name, (_, shape) in wanted.items()}, found)
    for theirs, (ours, _) in wanted.items():
        array = _as_ours(state[theirs]).astype(np.float32)
        weights[ours] = array.reshape(
            weights[ours].shape
        )  # of a 1x1 convolution for a linear layer
    if isinstance(spec.units[0], BottleneckUnit):
        _move_first_norm(weights)
    return weights


def _of_densenet(spec: AnytimeSpec) -> Iterator[tuple[str, str]]:
    """(our layer, timm's layer)."""
    yield "stem.conv", "features.conv0"
    yield "stem.norm", "features.norm0"
    block = layer = 1
    for i, unit in enumerate(spec.units):
        if isinstance(unit, DenseTransition):
            for name in ("norm", "conv"):
                yield f"unit{i}.{name}", f"features.transition{block}.{name}"
            block, layer = block + 1, 1
        else:
            for name in ("norm1", "conv1", "norm2", "conv2"):
                yield f"unit{i}.{name}", f"features.denseblock{block}.denselayer{layer}.{name}"
            layer += 1
    yield f"exit{spec.exits[-1]}.norm", "features.norm5"
    yield f"exit{spec.exits[-1]}.linear", "classifier"


def _of_resnet(spec: AnytimeSpec) -> Iterator[tuple[str, str]]:
    yield "stem.conv", "stem.conv"
    stage, block = -1, 0
    for i, unit in enumerate(spec.units):
        assert isinstance(unit, BottleneckUnit)
        if unit.projects:
            stage, block = stage + 1, 0
            yield f"unit{i}.shortcut", f"stages.{stage}.blocks.0.downsample.conv"
        for name in ("norm1", "conv1", "norm2", "conv2", "norm3", "conv3"):
            yield f"unit{i}.{name}", f"stages.{stage}.blocks.{block}.{name}"
        block += 1
    yield f"exit{spec.exits[-1]}.norm", "norm"
    yield f"exit{spec.exits[-1]}.linear", "head.fc"


def _drop_other_classes(
    spec: AnytimeSpec, names: dict[str, str], state: Mapping[str, NDArray[Any]]
) -> None:
    """Leaves out the last layer where it is for another number of classes."""
    last = f"exit{spec.exits[-1]}.linear"
    bias = state.get(f"{names[last]}.bias")
    if bias is None or bias.shape != (spec.num_classes,):
        del names[last]


def _fields(layer: Layer, theirs: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(timm's name, our field, timm's shape) of a layer's weights."""
    match layer:
        case Conv():
            height, width, inner, outer = layer.parameters()["kernel"]
            yield f"{theirs}.weight", "kernel", (outer, inner, height, width)
        case BatchNorm(channels=channels):
            for ours, name in _OF_NORM.items():
                yield f"{theirs}.{name}", ours, (channels,)
        case Linear(inputs=inputs, outputs=outputs):
            kernel = (outputs, inputs) if theirs == "classifier" else (outputs, inputs, 1, 1)
            yield f"{theirs}.weight", "kernel", kernel
            yield f"{theirs}.bias", "bias", (outputs,)


def _as_ours(array: NDArray[Any]) -> NDArray[Any]:
    """OIHW to HWIO, (out, in) to (in, out)."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


def _move_first_norm(weights: Weights) -> None:
    """Timm normalises behind the stem's pooling, ours before it, which is the same if it rises."""
    fields = tuple(_OF_NORM)
    scale = weights["unit0.norm1.scale"]
    if (scale < 0).any():
        raise ValueError(
            "the scale of timm's first normalisation must be at least 0, as it changes places with "
            f"the pooling, got {float(scale.min()):g}"
        )
    for field in fields:
        weights[f"stem.norm.{field}"] = weights[f"unit0.norm1.{field}"]
    identity = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0 - _EPSILON}
    for field, value in identity.items():
        weights[f"unit0.norm1.{field}"] = np.full_like(scale, value)


_EPSILON = 1e-5  # of every BatchNorm, timm's and ours
