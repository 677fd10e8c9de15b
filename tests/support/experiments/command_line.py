"""The `loss-balance` command in this process."""

from __future__ import annotations

import contextlib
import io
import json
import sys

import pytest

from loss_balance.experiments import cli


def call(*arguments):
    """(exit status, what it printed, what it complained of)."""
    out, complaint = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["loss-balance", *map(str, arguments)])
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(complaint),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
    return ended.value.code or 0, out.getvalue(), complaint.getvalue()


def runs_in(folder):
    """(configuration, result, metrics) of every finished run below `folder`."""
    return [
        (
            json.loads((file.parent / "config.json").read_text()),
            json.loads(file.read_text()),
            [json.loads(line) for line in (file.parent / "metrics.jsonl").read_text().splitlines()],
        )
        for file in sorted(folder.rglob("result.json"))
    ]
