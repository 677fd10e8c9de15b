"""The blocks of docs/guides with Lightning itself."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from support.docs.loop_page import go_on, need
from support.docs.loop_torch import recorded, standing

# What the libraries say of each other and of a machine like this one.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "Starting from v1.9.0, `tensorboardX` has been removed:UserWarning",
        r".isinstance\(treespec, LeafSpec\). is deprecated:FutureWarning:lightning",
        r"The number of training batches \(\d+\) is smaller than the logging interval:UserWarning",
        "The 'train_dataloader' does not have many workers:UserWarning",
        "'pin_memory' argument is set as true but no accelerator is found:UserWarning",
    )
]


def test_lightning_with_lbfgs_observes_once_a_step():
    need("lightning")
    page = standing()
    seen = recorded(page)
    go_on(page, "torch", "lightning-lbfgs")
    assert page.module.balance.step == page.trainer.global_step == 16
    assert len(seen) > 2 * 16
