"""A functional Keras model cut at named layers: what runs up to each, and what is handed on.

The graph is read where Keras keeps it: `_keras_history` of a tensor, `_inbound_nodes` of what made
it. Stages are functional models of the same layers, which Keras makes of tensors within a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from loss_balance.reference_models.description.exits import check_known, out_of_order


@dataclass(frozen=True)
class Stage:
    """What is computed between two exits.

    Tensors stand in a list, those of the layer that the exit is named after first.
    """

    model: keras.Model  # from `takes` of the tensors given to new ones
    given: list[Any]  # KerasTensors
    takes: list[int]  # places in `given`
    gives: list[int]  # places in `given`, and behind them in what is new

    def __call__(self, tensors: Sequence[Any], training: bool) -> list[Any]:
        """The tensors to go on with."""
        new = self.model([tensors[i] for i in self.takes], training=training)
        found = [*tensors, *keras.tree.flatten(new)]
        return [found[i] for i in self.gives]


def cut(model: keras.Model, names: Sequence[str]) -> list[Stage]:
    """Stages of a model, the last one up to its output.

    A stage runs what its layer needs and no more, so two layers side by side can be in any order.

    Args:
        model: which `check_functional` has seen.
        names: of layers in its graph.

    Raises:
        ValueError: the names are not of layers in its graph, in order.
    """
    nodes = _up_to(_node(model.outputs[0]))
    targets = [_called(model, nodes, name) for name in names]
    stages, done, given = [], {id(n) for n in nodes if n.is_input}, list(model.inputs)
    for name, target in zip((*names, None), (*targets, nodes[-1]), strict=True):
        if id(target) in done:
            raise out_of_order(names[names.index(name) - 1], name)
        needed = [node for node in _up_to(target) if id(node) not in done]
        done |= {id(node) for node in needed}
        made = [model.outputs[0]] if name is None else _crossing(nodes, done, target)
        stages.append(_stage(given, needed, made, f"up_to_{name or 'output'}"))
        given = made
    return stages


def _stage(given: list[Any], needed: list[Any], made: list[Any], name: str) -> Stage:
    known = [id(x) for x in given]
    read = {id(x) for node in needed for x in node.input_tensors}
    takes = [i for i, tensor in enumerate(known) if tensor in read]
    new = [x for x in made if id(x) not in known]
    places = [*known, *map(id, new)]
    histories = [x._keras_history for x in given]
    # A name may have what Keras does not allow in one.
    model = keras.Model([given[i] for i in takes], new, name=name.replace("/", "_"))
    # The image, given beside tensors from within, Keras would take from the model it was made for.
    for x, history in zip(given, histories, strict=True):
        x._keras_history = history
    return Stage(model, given, takes, [places.index(id(x)) for x in made])


def _crossing(nodes: list[Any], done: set[int], target: Any) -> list[Any]:
    """What was made so far and is read later, that of the target first."""
    later = {id(x) for node in nodes if id(node) not in done for x in node.input_tensors}
    so_far = [target, *(node for node in nodes if id(node) in done and node is not target)]
    return [x for node in so_far for x in node.outputs if id(x) in later]


def _node(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _up_to(target: Any) -> list[Any]:
    """The node and all it depends on, in order of computation."""
    found: dict[int, Any] = {}
    waiting = [(target, False)]
    while waiting:
        node, ready = waiting.pop()
        if id(node) in found:
            continue
        if ready:
            found[id(node)] = node
        else:
            waiting.append((node, True))
            waiting += [(parent, False) for parent in reversed(node.parent_nodes)]
    return list(found.values())


def _called(model: keras.Model, nodes: list[Any], name: str) -> Any:
    """The one node where the layer is called."""
    layers = [node for node in nodes if not node.is_input]
    for outer in {id(node.operation): node.operation for node in layers}.values():
        within = getattr(outer, "_flatten_layers", lambda **_: ())(include_self=False)
        if name in {layer.name for layer in within} - {node.operation.name for node in layers}:
            raise ValueError(
                f"exits must be layers in the outer graph, got {name!r}, which is within "
                f"{outer.name!r}: name that one, or build the model of {outer.name!r}'s layers"
            )
    found = [node for node in layers if node.operation.name == name]
    if found == nodes[-1:]:
        raise ValueError(
            "exits must be before the model's output, which always is the last, got "
            f"{name!r}, whose output that is"
        )
    if not found and name in {layer.name for layer in model.layers}:
        raise ValueError(f"exits must be on the way to the output, got {name!r}, which is not")
    check_known([name], list(dict.fromkeys(node.operation.name for node in layers)))
    if len(found) > 1:
        raise ValueError(
            f"exits must be layers called once, got {name!r}, called {len(found)} times"
        )
    if len(found[0].outputs) > 1:
        count = len(found[0].outputs)
        raise ValueError(f"exits must be layers with one output, got {name!r} with {count}")
    return found[0]


def check_functional(model: Any) -> None:
    """ValueError unless it is a graph of layers from one tensor to one tensor."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"the model must be a keras.Model, got a {type(model).__qualname__}")
    tensors: list[Any] = [getattr(model, name, None) for name in ("inputs", "outputs")]
    if not all(isinstance(found, list) for found in tensors):
        raise ValueError(
            "the model must be functional or a built Sequential, got a "
            f"{type(model).__qualname__} without a graph of layers"
        )
    if [len(found) for found in tensors] != [1, 1]:
        inputs, outputs = map(len, tensors)
        raise ValueError(
            "the model must have one input and one output, its logits, got "
            f"{inputs} inputs and {outputs} outputs"
        )
