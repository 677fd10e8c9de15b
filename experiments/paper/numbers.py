"""What the paper published, and where it says so.

Hu, Dey, Hebert, Bagnell: "Learning Anytime Predictions in Neural Networks via Adaptive Loss
Balancing". Its figures are plots without numbers: of those only what the text says of them is here.
"""

from __future__ import annotations

# Table 3a: average relative increase of the test error over OPT's, %, at fractions of the total
# cost; 12 ResANNs on CIFAR10, CIFAR100 and SVHN.
TABLE_3A: dict[str, tuple[float, ...]] = {
    "opt": (0.00, 0.00, 0.00, 0.00),
    "const": (15.07, 16.40, 18.76, 18.90),
    "linear": (25.67, 13.02, 12.97, 12.65),
    "adaloss": (32.99, 9.97, 3.96, 2.73),
}

# Table 3b: top-1 error on the validation images of ILSVRC, %, at fractions of the total cost. Its
# MSDNet38 with constant weights is Huang et al.'s published result.
TABLE_3B: dict[tuple[str, str], tuple[float, ...]] = {
    ("resann50", "const"): (54.34, 35.61, 27.23, 25.14),
    ("resann50", "adaloss"): (54.98, 34.92, 26.59, 24.42),
    ("denseann169", "const"): (48.15, 45.00, 29.09, 25.60),
    ("denseann169", "adaloss"): (47.17, 44.64, 28.22, 24.07),
    ("msdnet38", "const"): (33.9, 28.0, 25.7, 24.3),
    ("msdnet38", "adaloss"): (35.75, 28.04, 25.82, 23.99),
}

FIG_2A = (
    "Fig. 2a is a plot without numbers: training loss over OPT's at each depth of a ResNet of 15 "
    "units on CIFAR100. The text (Section 3) says that constant weights are increasingly worse "
    "towards the end; that half-end improves the last loss at the cost of the early ones; that "
    "AdaLoss's increases are roughly even and in late layers much below those of constant weights."
)
_FIG_4 = (
    "Fig. {panel} is a plot without numbers: error over the small network's final one{of}. The "
    "text (Section 5.2) says that the small networks with AdaLoss reach the same accuracies "
    "earlier than the large ones, of about twice the cost, with constant weights.{more}"
)


def _over_the_end(network: str, scheme: str) -> str:
    """Table 3b's errors at 1/4, 1/2 and 3/4 of a network's cost, over its final one."""
    *early, final = TABLE_3B[network, scheme]
    return ", ".join(f"{100 * (error / final - 1):.0f}" for error in early)


FIG_4 = {
    "fig4a": _FIG_4.format(panel="4a", of=", six pairs of ResANNs on CIFAR10", more=""),
    "fig4b": _FIG_4.format(panel="4b", of=", six pairs of ResANNs on CIFAR100", more=""),
    "fig4c": _FIG_4.format(panel="4c", of=", six pairs of ResANNs on SVHN", more=""),
    "fig4d": _FIG_4.format(
        panel="4d",
        of=", ResANNs on ILSVRC",
        more=" It does not say which. ResANN50 with AdaLoss is in Table 3b too: at 1/4, 1/2 and "
        f"3/4 of its cost {_over_the_end('resann50', 'adaloss')} % over its final error.",
    ),
    "fig4e": _FIG_4.format(
        panel="4e",
        of=", MSDNet32 with AdaLoss and MSDNet38 with constant weights on ILSVRC",
        more=" MSDNet32, of 4.0e9 FLOPs, becomes about as accurate as MSDNet38, of 6.6e9, which by "
        "Table 3b ends at 24.3 % and is at 1/4, 1/2 and 3/4 of its own cost "
        f"{_over_the_end('msdnet38', 'const')} % over that.",
    ),
}
FIG_4["fig4"] = FIG_4["fig4b"]
FIG_5A = (
    "Fig. 5a is a plot without numbers: ResANNs with c = 32 and n = 7, 13, 25 on CIFAR100. The "
    "text (Section 5.3) says that the ensemble is better early than the one large network, better "
    "with AdaLoss than with constant weights, and closer to OPT."
)
FIG_5B = (
    "Fig. 5b is a plot without numbers: ResANN26, 50 and 101 on ILSVRC. The text (Section 5.3) "
    "says that their ensemble is significantly better than linear ensembles of ResNets and of "
    "DenseNets, which drastically reduces the gap to MSDNet; that against ResANN50 alone it is "
    "better early and delays the final predictions. Which networks the linear ensembles have is "
    "not said."
)
FIG_5C = (
    "Fig. 5c is a plot without numbers: final weights of ResANN(25, 32). The text (Section 5.4) "
    "says that from the easiest data set, SVHN, to the hardest, CIFAR100, the weights are more "
    "concentrated on the last layers."
)
