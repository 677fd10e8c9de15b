from __future__ import annotations

import pytest
from networks import *
from networks import NetworkContract

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
from loss_balance.experiments.jax_probe import JaxProbe
from loss_balance.reference_models import jax_units


class TestJax(NetworkContract):
    probe = JaxProbe()

    def parts_run(self, net, images, exits):
        """The modules called while tracing with all inner compilation switched off."""
        run = []
        named = {"stem": net.stem}
        named |= {f"unit{i}": unit for i, unit in enumerate(net.units)}
        named |= {f"exit{i}": head for i, head in net.exits.items()}
        for name, part in named.items():
            part.label = name  # carried along when NNX takes modules apart and together

        def recorder(call):
            def recorded(part, *inputs):
                run.append(part.label)
                return call(part, *inputs)

            return recorded

        def consume(images):
            answers = net.anytime(images)
            return [next(answers) for _ in range(exits)]

        with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
            for kind in jax_units.KINDS.values():
                patch.setattr(kind, "__call__", recorder(kind.__call__))
            jax.eval_shape(consume, images)
        return run
