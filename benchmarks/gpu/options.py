"""What a part of `benchmarks/gpu.sh`, or one of its jobs, is asked for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What a part or a job was asked for."""

    out: Path
    device: str
    seconds: float
    smallest: bool
    frameworks: tuple[str, ...]

    @staticmethod
    def read(about: str | None, seconds: float) -> Options:
        """Options from the command line; `seconds` by default."""
        parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
        parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
        parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
        parser.add_argument("--seconds", type=float, default=seconds, help="for all of it")
        parser.add_argument("--smallest", action="store_true", help="the same code, in seconds")
        parser.add_argument("--frameworks", nargs="+", default=["torch", "jax"])
        given = parser.parse_args()
        frameworks = tuple(given.frameworks)
        return Options(given.out, given.device, given.seconds, given.smallest, frameworks)

    def arguments(self, seconds: float) -> list[str]:
        """Arguments for a job that has that long."""
        smallest = ["--smallest"] if self.smallest else []
        given = ["--out", str(self.out), "--device", self.device, "--seconds", f"{seconds:.1f}"]
        return [*given, *smallest]
