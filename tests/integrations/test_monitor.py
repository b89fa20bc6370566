"""The monitor: when it measures, what it writes down, and that the training does not notice."""

import csv
import random
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flattest as ft
from flattest.errors import FlattestError
from flattest.integrations import FlatnessMonitor, monitor as monitor_module
from flattest.modules.guards import random_states, restore_random_states

X = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 12, (24,), generator=torch.Generator().manual_seed(1))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 6),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(6, 5),
            nn.Tanh(),
            nn.Linear(5, 12),
        )


def train(net, monitor=None, steps=12):
    """Train with dropout and batch normalisation, and return all that the training leaves."""
    states = random_states(net)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    try:
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for _ in range(steps):
            optimiser.zero_grad()
            some = torch.randint(0, len(X), (8,))
            loss = nn.functional.cross_entropy(net(X[some]), Y[some])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if monitor is not None:
                monitor.step(net)
        rest = [torch.rand(1).item(), np.random.random(), random.random()]  # noqa: NPY002
    finally:
        restore_random_states(states)
    tensors = [t.tolist() for t in net.state_dict().values()]
    return losses, rest, tensors, [p.grad.tolist() for p in net.parameters()]


PROBES = {
    "a batch": lambda: (X[:10], Y[:10]),
    "a shuffled loader": lambda: (DataLoader(TensorDataset(X, Y), 8, shuffle=True), None),
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(
    "options",
    [{}, {"symmetry": "scales"}, {"residual": "estimate", "random_state": 0, "rtol": 0.5}],
    ids=str,
)
def test_the_training_does_not_notice(probe, options):
    monitor = FlatnessMonitor(*PROBES[probe](), loss="cross_entropy", every=3, **options)
    watched = network()
    assert train(watched, monitor) == train(network())
    assert all(module.training for module in watched.modules())
    assert [reading.step for reading in monitor.readings] == [3, 6, 9, 12]


def test_readings_are_measurements_in_evaluation_mode():
    net = network()
    monitor = FlatnessMonitor(X, Y, loss="cross_entropy", symmetry="scales")
    found = monitor.measure(net)
    right = ft.measure(net.eval(), X, Y, loss="cross_entropy", symmetry="scales")
    figures = monitor.readings[0].figures
    assert figures["trace"] == pytest.approx(right.trace, rel=1e-6)
    assert figures["orbit_minimum"] == pytest.approx(right.orbit_minimum, rel=1e-6)
    assert monitor.last is found
    assert list(monitor.table().index) == [0]


def test_estimates_come_with_their_errors():
    monitor = FlatnessMonitor(X, Y, loss="cross_entropy", residual="estimate", rtol=0.5)
    monitor.measure(network())
    figures = monitor.readings[0].figures
    assert figures["trace_standard_error"] > 0


def test_two_layer_networks_are_watched_too():
    net = ft.TwoLayerNet([[2.0, 0.0], [0.0, 1.0]], [0.5, -1.0], "relu")
    monitor = FlatnessMonitor([[3.0, 1.0], [-1.0, 2.0]], [2.0, -2.0], every=1)
    assert monitor.step(net).trace == 58.5
    assert monitor.readings[0].figures["orbit_minimum"] <= 58.5


def test_a_mixture_of_modes_comes_back():
    net = network()
    net[1].eval()  # as frozen normalisation
    FlatnessMonitor(X, Y, loss="cross_entropy").measure(net)
    assert [m.training for m in net.modules()] == [True, True, False, *5 * [True]]


def test_networks_whose_eval_does_more_are_not_told():
    class Merges(nn.Linear):
        def train(self, mode=True):
            raise AssertionError("merges its adapters")

    net = Merges(5, 12)
    FlatnessMonitor(X, Y, loss="cross_entropy").measure(net)
    assert net.training


def state(net):
    return (
        [m.training for m in net.modules()],
        [t.tolist() for t in net.state_dict().values()],
        [p.requires_grad for p in net.parameters()],
        torch.get_rng_state().tolist(),
    )


def test_errors_and_interrupts_leave_the_network_alone(monkeypatch, ctrl_c_interrupts):
    net = network()
    before = state(net)
    with pytest.raises(ValueError, match="y has"):
        FlatnessMonitor(X, Y[:3], loss="cross_entropy").measure(net)
    assert state(net) == before

    def interrupted(model, X, y, loss):
        torch.rand(1)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(monitor_module, "measure", interrupted)
    monitor = FlatnessMonitor(X, Y, loss="cross_entropy")
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        monitor.measure(net)
    assert signal.getsignal(signal.SIGINT) is handler
    assert state(net) == before
    assert monitor.readings == []


def test_control_c_within_a_measurement_is_not_taken_for_a_partial_result(ctrl_c_interrupts):
    net = network()
    calls = []

    def loss(logits, targets):
        calls.append(len(logits))
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return nn.functional.cross_entropy(logits, targets)

    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        FlatnessMonitor(X, Y, loss=loss).measure(net)
    assert len(calls) == 2
    assert state(net) == before


def test_the_cost_is_stated(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def slow(model, X, y, **options):
        now[0] += 2.0
        return ft.measure(model, X, y, **options)

    monkeypatch.setattr(monitor_module, "measure", slow)
    net, monitor = nn.Linear(5, 12), FlatnessMonitor(X, Y, loss="cross_entropy", every=2)
    assert monitor.share_of_time == 0
    for _ in range(4):
        monitor.step(net)
        now[0] += 3.0
    seconds = [reading.figures["seconds"] for reading in monitor.readings]
    shares = [reading.figures["share_of_time"] for reading in monitor.readings]
    assert seconds == [2.0, 2.0]
    assert shares == pytest.approx([2 / 5, 4 / 13])  # 3 s, then measured; 9 s, then twice measured
    assert monitor.summary() == ("Flatness: 2 measurements of 24 samples took 4 s, 25.0% of 16 s.")


def test_steps_of_others_are_taken_over():
    net, monitor = nn.Linear(5, 12), FlatnessMonitor(X, Y, loss="cross_entropy", every=10)
    done = [monitor.step(net, step) is not None for step in (9, 10, 10, 10, 11, 20)]
    assert done == [False, True, False, False, False, True]


def test_csv_files_and_functions_are_told(tmp_path):
    told = []
    path = tmp_path / "flatness.csv"
    monitor = FlatnessMonitor(
        X, Y, loss="cross_entropy", every=2, loggers=[path, lambda *one: told.append(one)]
    )
    train(network(), monitor, steps=4)
    rows = list(csv.DictReader(path.open()))
    assert [int(row["step"]) for row in rows] == [2, 4] == [step for _, step in told]
    for row, (figures, _), reading in zip(rows, told, monitor.readings, strict=True):
        assert figures == reading.figures
        assert {k: float(v) for k, v in row.items() if k != "step"} == reading.figures
    again = FlatnessMonitor(X, Y, loss="cross_entropy", loggers=str(path), panel=True)
    again.measure(network().eval(), 6)  # a run that is taken up, with a figure more
    rows = list(csv.DictReader(path.open()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [bool(row["fisher_rao"]) for row in rows] == [False, False, True]


def test_files_of_others_are_not_touched(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FlattestError, match="is no table of a FlatnessMonitor"):
        FlatnessMonitor(X, Y, loggers=[path])
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "every"),
        ({"los": "mse"}, TypeError, "'los' is no option of flattest.measure"),
        ({"loggers": [3]}, TypeError, "loggers must hold"),
        ({"loggers": ["runs/one"]}, FlattestError, r"ends in \.csv"),
        ({"loggers": ["no-such-folder/a.csv"]}, FlattestError, "does not exist"),
        ({"probe_X": iter([(X, Y)])}, TypeError, "not an iterator"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        FlatnessMonitor(**{"probe_X": X, "probe_y": Y, **arguments})


def test_tensorboard_is_told(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        monitor = FlatnessMonitor(X, Y, loss="cross_entropy", every=2, loggers=[writer])
        train(network(), monitor, steps=4)
    events = EventAccumulator(str(tmp_path)).Reload()
    read = [(event.step, event.value) for event in events.Scalars("flatness/trace")]
    right = [(r.step, pytest.approx(r.figures["trace"], rel=1e-6)) for r in monitor.readings]
    assert read == right
