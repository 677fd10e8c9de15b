"""The probe of replicas tells weights that follow all replicas from those that follow one."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
from support import made_up_ways as ways

from benchmarks.peers.probes import replicas


def test_equal_weights_are_told_from_unequal_ones():
    (good,) = replicas.probe(ways.good)
    assert good.text == "yes"
    (alone,) = replicas.probe(ways.alone)
    assert alone.text.startswith("no: ")
    assert alone.text.endswith("% apart")
