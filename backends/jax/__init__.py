"""AdaLoss for JAX: pure functions over a `State`, and a Flax NNX module that holds one.

state = init(3)
total, state = balance([loss1, loss2, loss3], state, 3)  # inside jit, grad, scan, shard_map
"""

from loss_balance.extras import require

require("jax", __name__)

from loss_balance.backends.jax.forks import fork, guidance
from loss_balance.backends.jax.functions import (
    balance,
    export_state,
    import_state,
    init,
    metrics,
    reset,
)
from loss_balance.backends.jax.module import Balancer, BalanceState

__all__ = [
    "BalanceState",
    "Balancer",
    "balance",
    "export_state",
    "fork",
    "guidance",
    "import_state",
    "init",
    "metrics",
    "reset",
]
