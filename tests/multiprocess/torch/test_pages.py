"""docs/distributed/torch.md: its scripts and commands, in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from support.docs.scripts import DOCS, blocks, run, write_files

PAGE = "distributed/torch.md"
BLOCKS = blocks(PAGE)
TORCHRUN = BLOCKS["two processes"]
KILLED = """
import os, signal

whole, calls = losses_of, []


def losses_of(net, batch):
    calls.append(batch)
    if os.environ["RANK"] == "1" and len(calls) == 6 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(net, batch)
"""


def loaded(path):
    return torch.load(path, weights_only=True)


def assert_same(left, right, **tolerance):
    torch.testing.assert_close(left, right, **(tolerance or {"rtol": 0.0, "atol": 0.0}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the page's files, what `one.py` and two processes of `train.py` left among them."""
    folder = tmp_path_factory.mktemp("page")
    write_files(PAGE, folder)
    run("python one.py", folder)
    run(TORCHRUN, folder)
    return folder


def test_two_processes_end_with_the_network_of_one(folder):
    one, two = loaded(folder / "one.pt"), loaded(folder / "checkpoint.pt")
    assert two["epochs"] == 3
    assert two["balance"]["step"] == one["balance"]["step"] == 12
    for part in ("net", "balance"):
        assert_same(two[part], one[part], rtol=1e-5, atol=1e-6)


def test_after_a_kill_the_loop_goes_on_to_the_same_bits(folder, tmp_path):
    write_files(PAGE, tmp_path)
    with Path(tmp_path, "mine.py").open("a") as mine:
        mine.write(KILLED)
    run(BLOCKS["until it is done"], tmp_path)
    assert Path(tmp_path, "killed").exists()
    interrupted, whole = (loaded(x / "checkpoint.pt") for x in (tmp_path, folder))
    assert_same(interrupted, whole)


def test_ranks_of_unequally_many_batches_share_one_state(folder):
    run(TORCHRUN.replace("train.py", "uneven.py"), folder)
    first, second = (loaded(folder / f"uneven-{rank}.pt") for rank in range(2))
    assert_same(first, second)
    assert first["step"] == 5


def test_shards_saved_by_two_are_trained_further_by_one(folder):
    command = TORCHRUN.replace("train.py", "sharded.py")
    mine = Path(folder, "mine.py")
    text = mine.read_text()
    mine.write_text(text.replace("EPOCHS, BATCH = 3", "EPOCHS, BATCH = 2"))
    run(command, folder)
    mine.write_text(text)
    Path(folder, "sharded", "000009").mkdir()  # what a killed rank left
    run(command.replace("--nproc-per-node 2", "--nproc-per-node 1"), folder)
    finished = sorted(x.parent.name for x in Path(folder, "sharded").glob("*/.metadata"))
    assert finished == ["000001", "000002", "000003"]
    found = whole_checkpoint(folder / "sharded" / "000003", folder / "found.pt")
    one = loaded(folder / "one.pt")
    for part in ("net", "balance"):
        assert_same(found[part], one[part], rtol=1e-5, atol=1e-6)


def whole_checkpoint(folder, path):
    """A distributed checkpoint in one piece."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(folder, path)
    return loaded(path)


def test_every_block_of_the_page_is_run():
    scripts = {"mine.py", "one.py", "train.py", "uneven.py", "sharded.py"}
    assert BLOCKS.keys() == scripts | {"two processes", "until it is done"}
    assert (DOCS / PAGE).read_text().count("```") == 2 * len(BLOCKS)
