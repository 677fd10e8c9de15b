"""Makes the pictures of the first pages: `python docs/pictures.py`, with PyTorch and matplotlib.

What `balance(losses)` does in a step, for light pages and dark ones, and the tutorial's picture, by
the tutorial's own blocks.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import matplotlib

from loss_balance.backends.numpy import Balancer

DOCS = Path(__file__).parent
LOSSES = {"depth": 4.0, "normals": 1.0, "labels": 0.5}
LIGHT = {"panel": "#f6f7f9", "line": "#9aa4b2", "text": "#1c2430", "soft": "#5b6675"}
DARK = {"panel": "#1b1f26", "line": "#667085", "text": "#e6e9ee", "soft": "#a3adba"}
COLOURS = {"depth": "#3b82c4", "normals": "#d9822b", "labels": "#3a9d6e"}
LEFT, MIDDLE, RIGHT, WIDE = 90, 340, 590, 150  # of the columns, and of their longest bar


def text(x: float, y: float, words: str, colour: str, size: int = 15, anchor: str = "start") -> str:
    """Words at a place."""
    style = f'fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{words}</text>'


def bar(x: float, y: float, share: float, colour: str, number: str, ink: str) -> str:
    """A number as a bar, and as itself behind it."""
    long = max(3.0, share * WIDE)
    box = f'<rect x="{x}" y="{y}" width="{long:.1f}" height="18" rx="3" fill="{colour}"/>'
    return box + text(x + long + 8, y + 14, number, ink)


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str, dashed: str = "") -> str:
    """A line with a head at its end."""
    dash = f' stroke-dasharray="{dashed}"' if dashed else ""
    ends = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
    return f'<line {ends} stroke="{colour}" stroke-width="1.6" marker-end="url(#end)"{dash}/>'


def step(ink: dict[str, str]) -> str:
    """The picture of a step, in numbers that the balancer itself gives."""
    balance = Balancer(len(LOSSES), names=list(LOSSES))
    total = balance(LOSSES)
    soft, most = ink["soft"], max(LOSSES.values())
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 318" '
        'font-family="system-ui, sans-serif" role="img">',
        '<marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{ink["line"]}"/></marker>',
        f'<rect width="860" height="318" rx="10" fill="{ink["panel"]}"/>',
        text(LEFT, 36, "losses of this step", ink["text"], 17),
        text(MIDDLE, 36, "running means", ink["text"], 17),
        text(RIGHT, 36, "weights", ink["text"], 17),
        text(MIDDLE, 58, "0.99 mean + 0.01 loss", soft),
        text(RIGHT, 58, "0.95 smallest / mean + 0.05", soft),
    ]
    for k, (name, weight) in enumerate(zip(LOSSES, balance.weights, strict=True)):
        y, loss, colour = 76 + 38 * k, LOSSES[name], COLOURS[name]
        parts += [
            text(LEFT - 12, y + 14, name, ink["text"], anchor="end"),
            bar(LEFT, y, loss / most, colour, f"{loss:.1f}", ink["text"]),
            bar(MIDDLE, y, loss / most, colour, f"{loss:.1f}", ink["text"]),
            bar(RIGHT, y, weight, colour, f"{weight:.2f}", ink["text"]),
        ]
    sums = " + ".join(
        f"{w:.2f} x {loss:.1f}" for w, loss in zip(balance.weights, LOSSES.values(), strict=True)
    )
    return "\n".join(
        [
            *parts,
            arrow(290, 128, 332, 128, ink["line"]),
            arrow(540, 128, 582, 128, ink["line"]),
            arrow(130, 236, 130, 196, ink["line"]),
            arrow(640, 196, 560, 236, ink["line"], "5 4"),
            f'<rect x="{LEFT}" y="240" width="650" height="38" rx="6" fill="none" '
            f'stroke="{ink["line"]}" stroke-width="1.6"/>',
            text(LEFT + 14, 264, f"loss = {sums} = {total:.2f}", ink["text"], 16),
            text(142, 220, "gradients flow back, each times its weight", soft),
            text(622, 226, "no gradient", soft),
            text(
                LEFT,
                304,
                "The largest weight is 1: the learning rate still fits. None is below 0.05.",
                soft,
            ),
            "</svg>\n",
        ]
    )


def tutorial(target: Path) -> None:
    """Runs the tutorial's blocks for PyTorch in a folder of their own and keeps their picture."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "loss-balance"  # the same file each time
    page = (DOCS / "start" / "ten-minutes.md").read_text()
    code = "\n".join(re.findall(r"(?ms)^```python torch\n(.*?)^```$", page))
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(compile(code, "ten-minutes.md", "exec"), {"__name__": "page"})
        os.chdir(here)
        made = Path(folder, "loss-weights.svg").read_text()
    target.write_text(re.sub(r"<dc:date>.*?</dc:date>", "", made).replace(" \n", "\n"))


if __name__ == "__main__":
    (DOCS / "_static" / "step-light.svg").write_text(step(LIGHT))
    (DOCS / "_static" / "step-dark.svg").write_text(step(DARK))
    tutorial(DOCS / "start" / "loss-weights.svg")
