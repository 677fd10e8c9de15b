"""The networks of Keras in TensorFlow's own loops, functions and files."""

from __future__ import annotations

import os

import pytest
from networks import NetworkContract

tf = pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from loss_balance.experiments.tensorflow_probe import TensorFlowProbe  # noqa: E402


def recording(net):
    """Names of the parts as they are called: in a compiled network, as they are traced."""
    run = []
    for part in net.layers:

        def call(*args, part=part, given=part.call, **options):
            run.append(part.name)
            return given(*args, **options)

        part.call = call
    return run


class TestTensorFlow(NetworkContract):
    probe = TensorFlowProbe()

    def parts_run(self, net, images, exits):
        run = recording(net)
        answers = net.anytime(images)
        for _ in range(exits):
            next(answers)
        return run
