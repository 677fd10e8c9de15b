"""An anytime network that is trained on digits for a moment and then answers by a deadline.

python examples/answer_by_deadline.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from loss_balance.anytime import (
    budgeted_thresholds,
    calibrate,
    early_exit,
    predict,
    top_probability,
)
from loss_balance.backends.torch import Balancer
from loss_balance.reference_models import families
from loss_balance.reference_models.torch import AnytimeNet


def trained(x: torch.Tensor, y: torch.Tensor) -> AnytimeNet:
    """A ResANN of three exits after eight epochs with AdaLoss."""
    spec = families.get("resann-1-8", num_classes=10, input_shape=(8, 8, 1))
    net, balance = AnytimeNet(spec).train(), Balancer(len(spec.exits))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(8):
        for batch in torch.randperm(len(x)).split(64):
            losses = [functional.cross_entropy(logits, y[batch]) for logits in net(x[batch])]
            optimizer.zero_grad()
            balance(losses).backward()
            optimizer.step()
    return net.eval().requires_grad_(requires_grad=False)


def main() -> None:
    """One image by a deadline, then a batch within a budget."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for steady times
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target)
    net = trained(x[:1400], y[:1400])

    image = x[1400:1401]
    times = calibrate(net, image)  # expected seconds to each exit
    print("milliseconds to each exit:", *(f"{1000 * time:.2f}" for time in times))
    for deadline in (times[0] / 2, times[-1] * 50):
        answer = predict(net.anytime(image), deadline, expected_times=times)
        late = ", late" if answer.late else ""
        print(
            f"deadline {1000 * deadline:.2f} ms: digit {int(answer.value.argmax())} "
            f"from exit {answer.exit}{late}"
        )

    costs = [cost.multiply_adds for cost in net.spec.costs()]
    scores = torch.stack(net(x[1400:1600]), dim=1).numpy()  # of images held out
    thresholds = budgeted_thresholds(top_probability(scores), budget=0.6 * costs[-1], costs=costs)
    left = early_exit(net, x[1600:], thresholds.values)
    right = (left.logits.argmax(axis=1) == y[1600:].numpy()).mean()
    spent = sum(costs[exit_] for exit_ in left.exits.tolist()) / len(left.exits)
    print(f"early exits: {100 * right:.1f} % right at {spent / costs[-1]:.2f} of the cost")


if __name__ == "__main__":
    main()
