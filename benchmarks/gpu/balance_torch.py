"""What combining losses costs in PyTorch: the combination alone and in a small training step."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.combining import STEPS, combinations, training_step
from benchmarks.gpu.attempts import Attempts
from benchmarks.gpu.balance_rows import COUNTS, EXITS, Repeats, add_rows
from benchmarks.gpu.cuda import compiling, free, graphed, start, timer
from benchmarks.gpu.options import Options
from benchmarks.timing import Step

PEERS = "TorchJD"
GRAPH = "CUDA graph"


class Balance:
    """The tables of this job."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.job = Attempts("torch", "torch", "balance", options, start(options.device), free)

    def run(self) -> int:
        """What tells most comes first; compiling, which takes longest, last."""
        counts, attempt = COUNTS[: 1 if self.options.smallest else None], self.job.attempt
        _note_peers(self.job)
        modes = ("eager", GRAPH) if self.options.device == "cuda" else ("eager",)
        for mode in modes:
            for count in counts:
                work = partial(self.combination, count, mode)
                attempt(f"{count} losses, {mode}", work, 10.0)
            attempt(f"step, {mode}", partial(self.step, mode), 10.0)
        if GRAPH not in modes:
            self.job.results.skip("CUDA graphs", "no CUDA device")
        attempt("step, compiled", partial(self.step, "compiled"), 40.0)
        return self.job.results.finish()

    def combination(self, count: int, mode: str) -> None:
        """Forward and backward of the combination of `count` scalar losses."""
        variants = combinations(count, self.options.device)
        if mode == GRAPH:
            variants = self._graphed(variants, f"{count} losses")
        self._tell("torch combination", variants, losses=count, mode=mode)

    def step(self, mode: str) -> None:
        """A training step of the small network."""
        compiled = None
        if mode == "compiled":
            compiled = partial(torch.compile, **compiling(smallest=self.options.smallest))
        exits = 2 if self.options.smallest else EXITS
        device = self.options.device
        variants = {name: training_step(name, exits, device, compiled) for name in STEPS}
        if mode == GRAPH:
            variants = self._graphed(variants, "step")
        self._tell("torch step", variants, losses=exits, mode=mode)

    def _graphed(self, variants: dict[str, Step], of: str) -> dict[str, Step]:
        """The steps that can be captured; a peer that cannot is named: it may wait for results."""
        graphs = {}
        for name, step in variants.items():
            try:
                graphs[name] = graphed(step)
            except RuntimeError as error:
                if not name.startswith(PEERS):
                    raise
                why = f"cannot be captured: {error}".split("\n")[0]
                self.job.results.skip(f"{of}, {name}, {GRAPH}", why)
        return graphs

    def _tell(self, table: str, variants: dict[str, Step], *, losses: int, mode: str) -> None:
        repeats = Repeats(2, 1) if self.options.smallest else Repeats(20, 20)
        timed = timer(self.options.device)
        add_rows(self.job.results, table, variants, repeats, timed, losses=losses, mode=mode)


def _note_peers(job: Attempts) -> None:
    try:
        import torchjd  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        job.results.skip(PEERS.lower(), "not installed")


if __name__ == "__main__":
    raise SystemExit(Balance(Options.read(__doc__, 40)).run())
