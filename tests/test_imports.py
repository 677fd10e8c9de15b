"""What an import brings along, each checked in a fresh interpreter."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

FRAMEWORKS = ["torch", "tensorflow", "keras", "jax", "flax"]


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_core_loads_no_framework():
    loaded = modules_after("import loss_balance")
    assert "loss_balance.schemes.adaloss" in loaded
    assert not loaded & {*FRAMEWORKS, "matplotlib", "sklearn", "typer", "rich"}


@pytest.mark.parametrize("name", ["schemes", "anytime", "eann"])
def test_packages_of_the_core_are_there_after_a_plain_import(name):
    code = f"import loss_balance\nassert {name!r} in dir(loss_balance)\nloss_balance.{name}.__all__"
    assert modules_after(code) >= {"loss_balance", f"loss_balance.{name}"}


def test_a_name_that_is_not_there_is_an_attribute_error():
    import loss_balance

    assert not hasattr(loss_balance, "losses")


@pytest.mark.parametrize(
    "module",
    [
        "anytime",
        "eann",
        "backends.numpy",
        "reference_models.description.spec",
        "reference_models.exports",
        "reference_models.families",
        "reference_models.onnx",
        "reference_models.weights",
    ],
)
def test_what_needs_numpy_only_loads_no_framework(module):
    if module == "reference_models.onnx":
        pytest.importorskip("onnxruntime")  # which it needs besides
    assert not modules_after(f"import loss_balance.{module}") & set(FRAMEWORKS)


@pytest.mark.parametrize(
    ("module", "own"),
    [
        ("backends.torch", {"torch"}),
        ("reference_models.torch", {"torch"}),
        ("reference_models.tensorflow", {"tensorflow", "keras"}),
        ("experiments.verification.probes.torch", {"torch"}),
        ("backends.jax", {"jax", "flax"}),
        ("reference_models.jax", {"jax", "flax"}),
        ("experiments.verification.probes.jax", {"jax", "flax"}),
        ("backends.tensorflow", {"tensorflow", "keras"}),
    ],
)
def test_an_adapter_loads_its_own_framework_alone(module, own):
    for framework in own:
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed here")
    loaded = modules_after(f"import loss_balance.{module}")
    assert loaded & set(FRAMEWORKS) == own


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("backends.torch", "torch", "torch"),
        ("reference_models.torch", "torch", "torch"),
        ("reference_models.tensorflow", "keras", "tensorflow"),
        ("backends.tensorflow", "keras", "tensorflow"),
        ("backends.jax", "jax", "jax"),
        ("backends.jax", "flax", "jax"),
        ("reference_models.jax", "jax", "jax"),
        ("reference_models.jax", "flax", "jax"),
        ("reference_models.onnx", "onnxruntime", "onnx"),
        ("experiments.cli", "typer", "experiments"),
    ],
)
def test_a_missing_extra_names_the_command_that_installs_it(module, missing, extra):
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\n"
        f"try:\n    import loss_balance.{module}\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'loss-balance[{extra}]'" in done.stdout


TRAINERS = ["lightning", "pytorch_lightning", "transformers"]


def test_an_adapter_loads_no_trainer():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed here")
    assert not modules_after("import loss_balance.backends.torch") & set(TRAINERS)


@pytest.mark.parametrize("library", TRAINERS)
def test_a_missing_trainer_is_named_with_the_command_that_installs_it(library):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed here")
    code = (
        f"import sys\nsys.modules[{library!r}] = None\n"
        f"try:\n    import loss_balance.backends.torch.{library}\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install {library.replace('_', '-')}" in done.stdout
