"""Three tasks of very different scale on scikit-learn's digits, in PyTorch.

python examples/train_torch.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from loss_balance import AdaLoss
from loss_balance.backends.torch import Balancer

NAMES = ("digit", "ink", "picture")


class ManyHeads(nn.Module):
    """One trunk; which digit it is, how much ink it has, and the picture itself."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.digit, self.ink, self.picture = nn.Linear(64, 10), nn.Linear(64, 1), nn.Linear(64, 64)
        self.balance = Balancer(AdaLoss(3), names=NAMES)  # saved with the model

    def losses(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """One scalar a task; the ink's is thousands of times the digit's."""
        hidden = self.trunk(x)
        ink = x.sum(dim=1, keepdim=True)
        return {
            "digit": functional.cross_entropy(self.digit(hidden), y),
            "ink": functional.mse_loss(self.ink(hidden), ink),
            "picture": functional.mse_loss(self.picture(hidden), x),
        }


def main() -> None:
    """Trains, saves, and goes on from the file."""
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32)
    y = torch.tensor(digits.target)

    model = ManyHeads()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(20):
        for batch in torch.randperm(len(x)).split(128):
            losses = model.losses(x[batch], y[batch])
            optimizer.zero_grad()
            model.balance(losses).backward()  # in place of sum(losses.values()).backward()
            optimizer.step()
        if epoch % 5 == 4:
            shown = "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            print(f"epoch {epoch + 1}: {shown}")
    for name, weight in zip(NAMES, model.balance.weights.tolist(), strict=True):
        print(f"loss_weight/{name} {weight:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.pt")
        torch.save(model.state_dict(), file)
        restored = ManyHeads()
        restored.load_state_dict(torch.load(file, weights_only=True))
    same = torch.equal(restored.balance.weights, model.balance.weights)
    print(f"the weights of the losses came back with the model: {same}")


if __name__ == "__main__":
    main()
