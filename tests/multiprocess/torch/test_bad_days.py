"""One rank is killed, or stops: the other ends, and the same command goes on to the same result."""

from __future__ import annotations

import signal

import pytest

torch = pytest.importorskip("torch")
from support.balancers.bad_days import EVERY, FATAL, STEPS, begin, ended, final


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What both ranks end with on a good day."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert ended(begin(folder)) == [0, 0]
    return final(folder)


@pytest.mark.parametrize(
    ("sent", "before"), [(signal.SIGKILL, "balance"), (signal.SIGSTOP, "backward")]
)
def test_when_one_rank_is_lost_the_other_ends_and_both_can_go_on(
    tmp_path, uninterrupted, sent, before
):
    first, second = ended(begin(tmp_path, (int(sent), before)))
    assert first not in (None, 0)  # an error of its own, for it did end
    assert second == -signal.SIGKILL
    assert not list(tmp_path.glob("*.json"))
    assert torch.load(tmp_path / "saved.pt", weights_only=True)["step"] == FATAL // EVERY * EVERY
    assert ended(begin(tmp_path)) == [0, 0]
    for rank, whole in zip(final(tmp_path), uninterrupted, strict=True):
        assert rank["losses"] == whole["losses"][FATAL // EVERY * EVERY :]
        assert rank["parameters"] == whole["parameters"]
        assert rank["state"] == whole["state"]
        assert rank["state"]["step"] == STEPS
