"""Downloads from a server on this machine: checked, kept only if right, clear without a network."""

from __future__ import annotations

import hashlib
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("pooch")
pytest.importorskip("scipy")
from support.experiments.published_cifar import SETS, assert_is, files, packed
from support.experiments.published_svhn import COUNTS, written

from loss_balance.experiments.data import cifar, svhn
from loss_balance.experiments.data.download import Published, fetch
from loss_balance.experiments.errors import UserError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """(folder, its address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def published(served, content=b"the content", name="file.bin"):
    folder, address = served
    (folder / name).write_bytes(content)
    return Published(f"{address}/{name}", f"sha256:{hashlib.sha256(content).hexdigest()}")


def test_a_file_is_fetched_into_a_new_folder(served, tmp_path):
    fetch(published(served), tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "file.bin").read_bytes() == b"the content"


def test_a_file_of_another_checksum_is_not_kept(served, tmp_path):
    wrong = published(served)
    (served[0] / "file.bin").write_bytes(b"another")
    with pytest.raises(UserError, match=r"published checksum sha256:.*, got another"):
        fetch(wrong, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_right_file_is_not_fetched_again(served, tmp_path):
    file = published(served)
    fetch(file, tmp_path / "new")
    (served[0] / "file.bin").unlink()
    fetch(file, tmp_path / "new")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_without_a_network_it_says_where_to_put_which_file(tmp_path, address):
    nowhere = Published(f"{address}/file.bin", "sha256:" + "0" * 64)
    with pytest.raises(UserError, match=rf"network that reaches {address}/file.bin, got ") as error:
        fetch(nowhere, tmp_path / "new")
    assert str(error.value).endswith(f"put the file at {tmp_path / 'new' / 'file.bin'}")
    assert "\n" not in str(error.value)


def test_a_missing_file_on_the_server_is_no_traceback(served, tmp_path):
    file = published(served)
    (served[0] / "file.bin").unlink()
    with pytest.raises(UserError, match="got HTTPError"):
        fetch(file, tmp_path / "new")


def test_the_path_must_be_a_folder(served, tmp_path):
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(UserError, match="--download needs a folder as --path, got the file"):
        fetch(published(served), tmp_path / "a file")


def test_a_folder_that_cannot_be_made_is_named(served, tmp_path):
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(UserError, match="--download needs a folder to write to, got "):
        fetch(published(served), tmp_path / "a file" / "below")


def test_without_pooch_the_command_that_installs_it_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(UserError, match=r"pip install 'loss-balance\[experiments\]'"):
        fetch(published(served), tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_cifar_is_fetched_once_and_read(served, tmp_path, name):
    content = packed(tmp_path / "any.tar.gz", files(name, "binary")).read_bytes()
    binary, python = SETS[name].layouts
    here = replace(binary, archive=published(served, content, binary.archive.file))
    fetched = replace(SETS[name], layouts=(here, python))
    with pytest.raises(UserError, match="--download fetches it there"):
        cifar.read(fetched, tmp_path / "new")
    assert_is(name, cifar.read(fetched, tmp_path / "new", download=True))
    (served[0] / binary.archive.file).unlink()
    assert_is(name, cifar.read(fetched, tmp_path / "new", download=True))


def test_svhn_fetches_what_is_missing(served, tmp_path, monkeypatch):
    (tmp_path / "all").mkdir()
    for file in written(tmp_path / "all").iterdir():
        part = file.name.partition("_")[0]
        here = published(served, file.read_bytes(), file.name)
        monkeypatch.setitem(svhn.PARTS, part, here)
    (tmp_path / "all" / "extra_32x32.mat").unlink()
    (served[0] / "train_32x32.mat").unlink()  # it is there: nobody asks for it
    splits = svhn.read(tmp_path / "all", download=True, counts=COUNTS)
    assert len(splits.y_train) == 11


@pytest.mark.parametrize(
    "published",
    [x.archive for c in (cifar.CIFAR10, cifar.CIFAR100) for x in c.layouts]
    + [*svhn.PARTS.values()],
    ids=lambda published: published.file,
)
def test_published_checksums_are_whole(published):
    kind, _, digits = published.checksum.partition(":")
    assert len(digits) == {"md5": 32, "sha256": 64}[kind]
    assert int(digits, 16)
