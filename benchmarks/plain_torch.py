"""Three of the paper's networks as one would write them by hand in PyTorch, to compare cost with.

The networks use nothing of this package. `pairs` puts each beside ours, from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

BATCH = 16
CLASSES = 10


class PreActBlock(nn.Module):
    """BN-ReLU-conv, twice, plus the input."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.stride, self.pad = stride, (cout - cin) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        if self.stride == 2:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, self.pad, self.pad))
        return out + x


class Classifier(nn.Module):
    """An exit of ResANN or DenseANN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


class ResANN(nn.Module):
    """An exit after every block."""

    def __init__(self, n: int = 3, c: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, c, 3, 1, 1, bias=False)
        widths = [c] * n + [2 * c] * n + [4 * c] * n
        self.blocks = nn.ModuleList(
            PreActBlock(cin, cout, 1 if cin == cout else 2)
            for cin, cout in zip([c, *widths], widths, strict=False)
        )
        self.classifiers = nn.ModuleList(Classifier(width) for width in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv(x)
        logits = []
        for block, classifier in zip(self.blocks, self.classifiers, strict=True):
            x = block(x)
            logits.append(classifier(x))
        return logits


class DenseLayer(nn.Module):
    """A bottlenecked layer of DenseNet."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return torch.cat([x, out], 1)


class Transition(nn.Module):
    """The transition between dense blocks."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(cin)
        self.conv = nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseANN(nn.Module):
    """An exit after every dense layer."""

    def __init__(self, n: int = 6, growth: int = 12) -> None:
        super().__init__()
        channels = 2 * growth
        self.conv = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        layers: list[nn.Module] = []
        classifiers = []
        for block in range(3):
            if block > 0:
                layers.append(Transition(channels, channels // 2))
                channels //= 2
            for _ in range(n):
                layers.append(DenseLayer(channels, growth))
                channels += growth
                classifiers.append(Classifier(channels))
        self.layers = nn.ModuleList(layers)
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv(x)
        logits: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, DenseLayer):
                logits.append(self.classifiers[len(logits)](x))
        return logits


def conv_bn_relu(cin: int, cout: int, size: int, stride: int = 1) -> list[nn.Module]:
    """Layers for nn.Sequential."""
    conv = nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)
    return [conv, nn.BatchNorm2d(cout), nn.ReLU()]


class MSDFirst(nn.Module):
    """The first map of every scale."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(*conv_bn_relu(cin, cout, 3, stride))
            for cin, cout, stride in zip([3, *channels], channels, [1, 2, 2], strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for scale in self.scales:
            maps.append(scale(maps[-1] if maps else x))
        return maps


class MSDLayer(nn.Module):
    """New channels for every scale kept."""

    def __init__(self, channels: list[int], factors: list[int], kept: int, growth: int) -> None:
        super().__init__()
        self.first = len(channels) - kept
        paths = []
        for target in range(self.first, len(channels)):
            new = growth * factors[target]
            own = new // 2 if target > 0 else new
            paths.append(self.path(channels[target], own, factors[target], 1))
            if target > 0:
                source = target - 1
                paths.append(self.path(channels[source], new - own, factors[source], 2))
        self.paths = nn.ModuleList(paths)

    @staticmethod
    def path(cin: int, cout: int, factor: int, stride: int) -> nn.Sequential:
        inner = min(cin, factor * cout)
        return nn.Sequential(*conv_bn_relu(cin, inner, 1), *conv_bn_relu(inner, cout, 3, stride))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        paths = iter(self.paths)
        outs = []
        for target in range(self.first, len(maps)):
            parts = [maps[target], next(paths)(maps[target])]
            if target > 0:
                parts.append(next(paths)(maps[target - 1]))
            outs.append(torch.cat(parts, 1))
        return outs


class MSDTransition(nn.Module):
    """Half the channels, on every scale."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(nn.Sequential(*conv_bn_relu(c, c // 2, 1)) for c in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [scale(x) for scale, x in zip(self.scales, maps, strict=True)]


class MSDNet(nn.Module):
    """MSDNet for CIFAR in the layout of AdaLoss' authors, 18 layers, an exit after every second."""

    def __init__(self, depth: int = 18, growth: int = 6) -> None:
        super().__init__()
        channels = [2 * growth, 4 * growth, 8 * growth]
        factors = [1, 2, 4]
        layers: list[nn.Module] = [MSDFirst(channels)]
        classifiers = {}
        for block in range(3):
            if block > 0:
                layers.append(MSDTransition(channels))
                channels = [c // 2 for c in channels]
            for _ in range(depth // 3 - 1):
                kept = 3 - block
                layers.append(MSDLayer(channels, factors, kept, growth))
                factors = factors[-kept:]
                channels = [c + growth * f for c, f in zip(channels[-kept:], factors, strict=True)]
                if len(layers) % 2 == 0 and len(layers) > 4:
                    classifiers[str(len(layers) - 1)] = nn.Sequential(
                        *conv_bn_relu(channels[-1], 128, 3, 2),
                        *conv_bn_relu(128, 128, 3, 2),
                        nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(),
                        nn.Linear(128, CLASSES),
                    )
        self.layers = nn.ModuleList(layers)
        self.classifiers = nn.ModuleDict(classifiers)

    def forward(self, x: Tensor) -> list[Tensor]:
        logits = []
        maps = x
        for i, layer in enumerate(self.layers):
            maps = layer(maps)
            if str(i) in self.classifiers:
                logits.append(self.classifiers[str(i)](maps[-1]))
        return logits


def train_step(net: nn.Module) -> Callable[[], Tensor]:
    """Forward, sum of cross-entropies, backward and update on one fixed batch; returns the loss."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    net.train()

    def step() -> Tensor:
        loss = sum(F.cross_entropy(logits, labels) for logits in net(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def pairs() -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Training steps (ours, plain) per network, eager as is the habit in PyTorch.

    Raises:
        ValueError: a pair is not the same network.
    """
    from loss_balance.reference_models import families
    from loss_balance.reference_models.torch import AnytimeNet

    specs = {
        "ResANN(3, 16)": (families.resann(3, 16), ResANN()),
        "DenseANN(6, 12)": (families.denseann(6, 12), DenseANN()),
        "MSDNet18": (families.msdnet(18), MSDNet()),
    }
    steps = {}
    for name, (spec, plain) in specs.items():
        ours = AnytimeNet(spec)
        weights = ours.state_dict().values()  # both list their layers in order of computation
        plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
        steps[name] = (train_step(ours), train_step(plain))
        first = [step() for step in steps[name]]
        if not torch.allclose(*first):
            raise ValueError(f"{name}: both must have the same loss, got {first}")
    return steps
