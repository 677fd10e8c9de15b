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


def train(folder, *more):
    """`call` of a run of seconds, whose options `more` may change."""
    small = ("--data", "digits", "--network", "resann-1-4", "--epochs", "1")
    return call("train", *small, "--out", folder, *more)


def one_line(status, _, complaint):
    """The complaint of a call that the user can mend: a single line and exit status 2."""
    assert status == 2, complaint
    (line,) = complaint.splitlines()
    assert line.startswith("loss-balance: ")
    return line


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
