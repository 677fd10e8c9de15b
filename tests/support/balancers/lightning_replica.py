"""A LightningModule that two processes train, each on its own batches, and what they end with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger

from loss_balance.backends.torch import Balancer
from loss_balance.backends.torch.lightning import LossWeightLogger


class Module(lightning.LightningModule):
    """One linear layer, two tasks; it notes the losses that it sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net, self.balance = torch.nn.Linear(8, 2), Balancer(2, names=["a", "b"])
        self.seen: list[list[float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Balances with the clock of the optimizer, as the page has it."""
        x, y = batch
        losses = ((self.net(x) - y) ** 2).mean(0)
        self.seen.append(losses.tolist())
        full = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        total: torch.Tensor = self.balance(losses, update=full or self.trainer.is_last_batch)
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain descent."""
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def on_fit_end(self) -> None:
        """Leaves what this process has for the test."""
        found = {
            "seen": self.seen,
            "state": {k: v.tolist() for k, v in self.balance.export_state().items()},
            "weight": self.net.weight.tolist(),
            "steps": self.trainer.global_step,
        }
        Path(f"{self.global_rank}.json").write_text(json.dumps(found))


def main() -> None:
    """Trains in two processes; Lightning starts the second by this file's command."""
    torch.manual_seed(0)
    scale = torch.tensor([3.0, 1.0])
    data = torch.utils.data.TensorDataset(torch.randn(160, 8), torch.randn(160, 2) * scale)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        accumulate_grad_batches=2,
        log_every_n_steps=1,
        logger=CSVLogger("logs"),
        callbacks=[LossWeightLogger()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=16))


if __name__ == "__main__":
    main()
