"""The runner of ONNX folders: the network's answers, under a deadline, without any framework."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
from support.networks.exports import DENSE, FAMILIES, RESIDUAL, TINY, assert_close, images_for

torch = pytest.importorskip("torch")
for needed in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed)

from support.networks.exports import filled

from loss_balance import eann
from loss_balance.anytime import calibrate, early_exit, predict, top_probability
from loss_balance.reference_models.exports import of_spec
from loss_balance.reference_models.onnx import AnytimeNet
from loss_balance.reference_models.torch import AnytimeNet as TorchNet
from loss_balance.reference_models.torch import native
from loss_balance.reference_models.torch.exporting import to_onnx, to_torch


def torch_net(spec):
    return filled(TorchNet, spec).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An export of each family, with what is known of it."""
    root = tmp_path_factory.mktemp("exports")
    np.savez(root / "statistics.npz", mean=np.float32([1, 2, 3]), std=np.float32([2, 4, 8]))
    for spec in FAMILIES:
        errors = np.linspace(0.3, 0.1, len(spec.exits)).tolist()
        about = of_spec(spec, validation_error=errors, class_names=("cat", "lynx", "puma"))
        to_onnx(torch_net(spec), root / spec.name, about, statistics=root / "statistics.npz")
    return root


@pytest.fixture(params=FAMILIES, ids=lambda spec: spec.name)
def pair(request, folders):
    """(the runner, the network it is of)."""
    return AnytimeNet(folders / request.param.name), torch_net(request.param)


@pytest.fixture
def net(folders):
    return AnytimeNet(folders / RESIDUAL.name)


@pytest.fixture
def own(folders, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(folders / RESIDUAL.name, tmp_path / "own")


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_call_gives_the_logits_of_all_exits(pair, size):
    net, whole = pair
    images = images_for(whole.spec, size)
    for found, wanted in zip(net(images), whole(native(images)), strict=True):
        assert found.dtype == np.float32
        assert_close(found, wanted.numpy())


@pytest.mark.parametrize("seed", range(10))
def test_any_sequence_of_sends_gives_the_networks_answers(pair, seed):
    net, whole = pair
    rng = np.random.default_rng(seed)
    images = images_for(whole.spec, 6, seed)
    scale = [np.abs(x.numpy()).max() for x in whole(native(images))]
    found, wanted, kept = net.anytime(images), whole.anytime(native(images)), None
    for k in count():
        try:
            expected = wanted.send(kept).numpy()
        except StopIteration:
            with pytest.raises(StopIteration):
                found.send(kept)
            assert k == len(whole.spec.exits)
            break
        logits = found.send(kept)
        assert logits.shape == expected.shape
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * scale[k])
        if rng.random() < 0.3 or not len(logits):
            kept = None
        else:  # some twice, at times none
            kept = rng.integers(len(logits), size=rng.integers(0, 2 * len(logits) + 1))


@pytest.mark.parametrize("kept", [[6], [-1], [0.0, 1.0], [[0]], [True]], ids=repr)
def test_what_are_no_positions_in_the_batch_is_refused(net, kept):
    answers = net.anytime(images_for(RESIDUAL, 6))
    next(answers)
    with pytest.raises(ValueError, match="positions in the current batch of 6, got"):
        answers.send(kept)


def test_images_of_another_shape_are_refused_before_anything_is_computed(net):
    with pytest.raises(ValueError, match=r"images of shape \(B, 8, 12, 3\), got \(2, 3, 8, 12\)"):
        net.anytime(np.zeros((2, 3, 8, 12)))


def test_it_says_what_the_export_knows(net):
    assert (net.input_shape, net.num_classes) == (RESIDUAL.input_shape, 3)
    assert net.costs() == RESIDUAL.costs()
    assert net.errors == pytest.approx((0.3, 0.2, 0.1))
    assert net.about.class_names == ("cat", "lynx", "puma")
    pixels = np.full((1, 8, 12, 3), 5, np.uint8)
    np.testing.assert_array_equal(net.standardise(pixels)[0, 0, 0], [2.0, 0.75, 0.25])


def test_it_answers_by_a_deadline(net):
    image = images_for(RESIDUAL, 1)
    times = calibrate(net, image, repeats=3)
    assert len(times) == 3
    whole = predict(net.anytime(image), errors=net.errors, expected_times=times)
    assert whole.exit == 2
    np.testing.assert_array_equal(whole.value, net(image)[2])
    first = predict(net.anytime(image), deadline=0.0)
    assert (first.exit, first.late) == (0, True)


def test_samples_leave_early_as_from_the_network(net):
    images = images_for(RESIDUAL, 12)
    middle = float(np.median(top_probability(net(images)[0])))
    found = early_exit(net, images, middle)
    wanted = early_exit(torch_net(RESIDUAL), native(images), middle)
    assert len(set(wanted.exits)) > 1
    np.testing.assert_array_equal(found.exits, wanted.exits)
    assert_close(found.logits, wanted.logits)


def test_it_is_a_member_of_an_ensemble(folders):
    image = images_for(RESIDUAL, 1)
    nets = [AnytimeNet(folders / RESIDUAL.name) for _ in range(2)]
    members = [eann.Member(nets[0], [0.5, 0.4, 0.3]), eann.Member(nets[1], [0.2])]
    answer = eann.run(members, image)
    assert (answer.member, answer.exit) == (1, 0)
    np.testing.assert_array_equal(answer.value, nets[1](image)[0])


def test_a_copy_through_a_pickle_answers_the_same(net):
    image = images_for(RESIDUAL, 2)
    copy = pickle.loads(pickle.dumps(net))
    for found, wanted in zip(copy(image), net(image), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_threads_are_a_whole_number(folders, threads):
    with pytest.raises(ValueError, match="threads must be a whole number of at least 1, got"):
        AnytimeNet(folders / RESIDUAL.name, threads=threads)


@pytest.mark.parametrize("providers", [(), ["Abacus"], "CPUExecutionProvider"], ids=repr)
def test_providers_are_those_of_this_onnxruntime(folders, providers):
    with pytest.raises(ValueError, match=r"providers must be some of .*CPU.*, got "):
        AnytimeNet(folders / RESIDUAL.name, providers=providers)


def test_more_threads_give_the_same(folders, net):
    images = images_for(RESIDUAL, 3)
    both = zip(AnytimeNet(folders / RESIDUAL.name, threads=2)(images), net(images), strict=True)
    for found, wanted in both:
        assert_close(found, wanted)


def test_it_needs_no_framework(folders, tmp_path):
    images = images_for(RESIDUAL, 3)
    expected = [x.numpy() for x in torch_net(RESIDUAL)(native(images))]
    np.savez(tmp_path / "known.npz", images, *expected)
    code = f"""
import sys
for name in ("torch", "tensorflow", "keras", "jax", "flax", "onnx", "onnxscript", "PIL", "typer"):
    sys.modules[name] = None
import numpy as np
from loss_balance.anytime import early_exit, predict
from loss_balance.reference_models.onnx import AnytimeNet
net = AnytimeNet({str(folders / RESIDUAL.name)!r})
with np.load({str(tmp_path / "known.npz")!r}) as known:
    images, *expected = known.values()
for found, wanted in zip(net(images), expected, strict=True):
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
assert predict(net.anytime(images)).exit == 2
assert early_exit(net, images, 0.0).exits.tolist() == [0, 0, 0]
print("answered")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "answered"), done.stderr


def refusal(folder):
    """What AnytimeNet says of the folder, in one line."""
    with pytest.raises(ValueError, match=r"\w") as refused:
        AnytimeNet(folder)
    assert str(folder) in str(refused.value)
    return str(refused.value)


def test_foreign_folders_are_refused(tmp_path):
    assert "exits.json must be a file that can be read, got" in refusal(tmp_path)
    assert "exits.json must be a file that can be read" in refusal(tmp_path / "missing")
    to_torch(torch_net(TINY), tmp_path / "torch")
    assert "must be an export to onnx, got one to torch" in refusal(tmp_path / "torch")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": 9}, "version 9, and this reads 1"),
        ({"num_classes": 4, "class_names": []}, "segment0.onnx must be as an export left it"),
        ({"input_shape": [12, 8, 3]}, "segment0.onnx must be as an export left it"),
        ({"input_shape": [8, 12]}, "input_shape must be (height, width, channels)"),
        ({"input_shape": "abc"}, "every entry of input_shape must be a whole number"),
        ({"class_names": ["cat"]}, "class_names must be one for each of 3 classes"),
        ({"exits": []}, "the number of exits must be"),
        ({"exits": 3}, "exits.json must be as an export left it"),
        ({"segments": []}, "a file and a segment for each of 3 exits"),
        ({"segments": None}, "exits.json must be as an export left it"),
        ({"format": "tflite"}, "the format must be one of"),
    ],
    ids=repr,
)
def test_an_exits_json_that_does_not_fit_is_refused(own, changed, words):
    file = own / "exits.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert words in refusal(own)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 5000])
def test_a_damaged_exits_json_is_refused(own, content):
    (own / "exits.json").write_bytes(content)
    assert "exits.json must be as an export left it" in refusal(own)


@pytest.mark.parametrize("name", ["../segment0.onnx", "/segment0.onnx", "..", "", "a\\b"])
def test_files_elsewhere_are_not_read(own, name):
    value = json.loads((own / "exits.json").read_text())
    value["segments"][0]["file"] = name
    (own / "exits.json").write_text(json.dumps(value))
    assert "a file must be in the folder itself" in refusal(own)


def test_damaged_and_foreign_segments_are_refused(own, folders):
    whole = (own / "segment1.onnx").read_bytes()
    for content in (b"", b"no network", whole[: len(whole) // 2]):
        (own / "segment1.onnx").write_bytes(content)
        assert "segment1.onnx must be as an export left it" in refusal(own)
    (own / "segment1.onnx").unlink()
    assert "segment1.onnx must be as an export left it" in refusal(own)
    for name in ("segment0", "segment2"):  # a network, but not the one that goes there
        shutil.copy(own / f"{name}.onnx", own / "segment1.onnx")
        assert "segment1.onnx must be as an export left it" in refusal(own)
    shutil.copy(folders / DENSE.name / "segment1.onnx", own)
    assert "segment1.onnx must be as an export left it" in refusal(own)


def test_without_statistics_or_costs_it_says_so(own):
    value = json.loads((own / "exits.json").read_text())
    for known in value["exits"]:
        known |= {"multiply_adds": None, "validation_error": None}
    (own / "exits.json").write_text(json.dumps(value))
    (own / "statistics.npz").write_bytes(b"broken")
    net = AnytimeNet(own)
    assert net.errors is None
    with pytest.raises(ValueError, match="must say what its exits cost, got nothing for unit"):
        net.costs()
    with pytest.raises(ValueError, match=r"statistics\.npz must be as an export left it"):
        net.standardise(np.zeros((1, 8, 12, 3)))
    (own / "statistics.npz").unlink()
    with pytest.raises(ValueError, match="must be there to standardise images, it is not"):
        net.standardise(np.zeros((1, 8, 12, 3)))
