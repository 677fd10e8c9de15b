"""TensorFlow's own checkpoints of the Keras layer: its variables, and whose they are."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf

from loss_balance.backends.identity import differences, identity, matched, read_identity, refusal

VALUE = "VARIABLE_VALUE"  # what TensorFlow calls the value of a variable in a checkpoint


class Checkpointed:
    """What `tf.train.Checkpoint` saves and restores of a layer, by name in `children`.

    The identity is restored first, as TensorFlow does with what is Python's, so that a state of
    somebody else is refused before any variable has changed.
    """

    def __init__(self, layer: Any) -> None:
        fields = [*layer.scheme.state_type()._fields, "calls"]
        self.fields: dict[str, _Field] = {
            f"state_{field}": _Field(layer, field) for field in fields
        }
        self.children: dict[str, Any] = {"identity": _Identity(layer, self), **self.fields}


class _Identity(tf.train.experimental.PythonState):
    def __init__(self, layer: Any, owner: Checkpointed) -> None:
        self.layer, self.owner = layer, owner

    def serialize(self) -> bytes:
        layer = self.layer
        whose = json.loads(identity(layer.scheme, layer.names).tobytes())
        return json.dumps(whose | {"waiting": layer.has_pending()}).encode()

    def deserialize(self, content: bytes) -> None:
        layer = self.layer
        whose = read_identity(np.frombuffer(content, np.uint8))
        problems = differences(whose["scheme"], layer.scheme, strict=layer.strict_loading)
        where, unmatched = matched(
            whose["names"], layer.names, layer.scheme.num_losses, partial=False
        )
        if problems or unmatched:
            raise refusal(layer.scheme, problems + unmatched)
        same = whose["scheme"]["class"] == type(layer.scheme).__name__
        for field in self.owner.fields.values():
            field.where, field.takes = where, same or field.name != "weights"
        layer.checkpoint_came(waiting=json.loads(content).get("waiting", False))


class _Field(tf.__internal__.tracking.Trackable):
    """A variable of the state, whose entries are put where they belong when they are restored."""

    def __init__(self, layer: Any, name: str) -> None:
        self.layer, self.name = layer, name
        self.as_it_is()

    def as_it_is(self) -> None:
        """A restored value is taken, in its order, unless an identity that comes first differs."""
        self.takes = True
        self.where: list[int | None] = list(range(self.layer.scheme.num_losses))

    def _serialize_to_tensors(self) -> dict[str, Any]:
        return {VALUE: self.layer.copied(self.name)}

    def _restore_from_tensors(self, restored: dict[str, Any]) -> None:
        """May be traced, and then runs anew at every restoration."""
        variable, value = self.layer.variable(self.name), restored[VALUE]
        if self.takes:
            variable.assign(tf.gather(value, self.where, axis=-1) if value.shape.rank else value)
        self.as_it_is()
