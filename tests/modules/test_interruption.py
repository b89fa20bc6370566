"""Ctrl-C: what was measured until then is returned, marked, and the model comes back as it was."""

import signal
import threading

import pytest
import torch
from torch import nn

import flattest as ft
from flattest import progress
from flattest.modules import watching

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 2, (12,), generator=torch.Generator().manual_seed(1))
OPTIONS = {"loss": "cross_entropy", "batch_size": 3}

pytestmark = pytest.mark.usefixtures("ctrl_c_interrupts")


def network(activation=nn.ReLU):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 2)).double()


class Interrupting(nn.Module):
    """A network that presses Ctrl-C when it is called with certain samples and a graph."""

    def __init__(self, row, body=None, times=1, calls=1):
        super().__init__()
        self.body = network() if body is None else body
        self.row, self.times, self.calls = row, times, calls

    def forward(self, x):
        wanted = torch.is_grad_enabled() and len(x) == 3 and torch.equal(x[0], X[self.row])
        if wanted:
            self.calls -= 1
            if self.calls == 0:
                for _ in range(self.times):
                    signal.raise_signal(signal.SIGINT)
        return self.body(x)


def same(found, expected):
    assert found.gauss_newton == pytest.approx(expected.gauss_newton, rel=1e-12)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert found.adaptive == pytest.approx(expected.adaptive, rel=1e-12)
    assert found.n_samples == expected.n_samples


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(torch.tensor([1.0, 3.0]))])
@pytest.mark.parametrize("row", [0, 3, 9])
def test_the_first_samples_of_a_batch(row, loss):
    options = {**OPTIONS, "loss": loss}
    with pytest.warns(UserWarning, match=f"those of the first {row + 3} samples"):
        found = ft.measure(Interrupting(row), X, Y, panel=True, **options)
    same(found, ft.measure(network(), X[: row + 3], Y[: row + 3], **options))
    assert found.partial
    assert "interrupted" in found.provenance["residual"].why
    assert found.trace != found.trace
    assert "interrupted" in repr(found)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def of_function(z, y):
    return nn.functional.cross_entropy(z, y)


def of_batch(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_losses_that_are_functions():
    expected = ft.measure(network(), X[:6], Y[:6], **OPTIONS)
    with pytest.warns(UserWarning, match="Interrupted"):
        found = ft.measure(Interrupting(3), X, Y, loss=of_function, batch_size=3)
    same(found, expected)
    with pytest.warns(UserWarning, match="Interrupted"):
        found = ft.measure(Interrupting(3), (X, Y), loss=of_batch, batch_size=3)
    assert found.gauss_newton == pytest.approx(expected.gauss_newton, rel=1e-12)


@pytest.mark.parametrize(("activation", "calls"), [(nn.ReLU, 1), (nn.GELU, 1), (nn.GELU, 2)])
def test_the_batches_before(activation, calls):
    # The second pass with a graph over the same samples is that of the residual part.
    batches = [(X[:6], Y[:6]), (X[6:], Y[6:])]
    options = {**OPTIONS, "residual": "exact", "random_state": 0}
    with pytest.warns(UserWarning, match="those of the first 6 samples"):
        found = ft.measure(Interrupting(9, network(activation), calls=calls), batches, **options)
    expected = ft.measure(network(activation), X[:6], Y[:6], **options)
    same(found, expected)
    assert found.partial
    assert found.trace == pytest.approx(expected.trace, rel=1e-12)


def wide():
    """Return a network of so many outputs that some columns are drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 40), nn.LeakyReLU(0.9)
        ).double()


def test_drawn_columns_of_the_batches_before():
    batches = [(X[:6], Y[:6]), (X[6:], Y[6:])]
    options = {**OPTIONS, "mode": "sampled", "residual": "none", "random_state": 0, "rtol": 10.0}
    options["loss"] = nn.CrossEntropyLoss()
    with pytest.warns(UserWarning, match="those of the first 6 samples"):
        found = ft.measure(Interrupting(9, wide()), batches, **options)
    expected = ft.measure(wide(), X[:6], Y[:6], **options)
    same(found, expected)
    assert found.standard_error == pytest.approx(expected.standard_error)
    assert set(found.standard_error) == {"gauss_newton", "adaptive"}


def test_the_largest_eigenvalue_is_left_out():
    # With a graph, the samples come by for the columns first, and then for every product.
    options = {**OPTIONS, "largest_eigenvalue": "hessian", "random_state": 0}
    with pytest.warns(UserWarning, match="the largest eigenvalue may be missing"):
        found = ft.measure(Interrupting(3, calls=3), X, Y, **options)
    assert not found.partial
    assert found.trace == pytest.approx(ft.measure(network(), X, Y, **OPTIONS).trace, rel=1e-12)
    assert found.largest_eigenvalue != found.largest_eigenvalue
    assert "interrupted" in found.provenance["largest_eigenvalue"].why


def test_nothing_measured_yet():
    with pytest.raises(KeyboardInterrupt):
        ft.measure(Interrupting(0, wide()), X, Y, mode="sampled", rtol=10.0, **OPTIONS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_interrupts_at_once():
    module = Interrupting(3, times=2)
    with pytest.raises(KeyboardInterrupt):
        ft.measure(module, X, Y, **OPTIONS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_handlers_of_others_and_other_threads_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("mine"))
    try:
        found = ft.measure(Interrupting(3), X, Y, **OPTIONS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen
    assert not found.partial
    results = []
    thread = threading.Thread(target=lambda: results.append(ft.measure(network(), X, Y, **OPTIONS)))
    thread.start()
    thread.join()
    same(results[0], ft.measure(network(), X, Y, **OPTIONS))


class Recorded(progress.Bar):
    """A bar that remembers what it was told."""

    def __init__(self):
        self.changes = []

    def update(self, **changes):
        self.changes.append(changes)


@pytest.mark.parametrize("batches", ["one", "list", "generator"])
def test_progress_counts_samples_to_the_end(batches):
    bar = Recorded()
    pairs = [(X[:6], Y[:6]), (X[6:], Y[6:])]
    data, n_batches = {"one": ([(X, Y)], 1), "list": (pairs, 2), "generator": (pairs, None)}[
        batches
    ]
    watch = watching.Watch(bar, n_batches)
    for x, _ in data:
        watch.begin(len(x))
        for stage in range(2):
            watch.stage(stage)
            for part in x.split(3):
                watch.tick(len(part))
    totals = [change["total"] for change in bar.changes if "total" in change]
    completed = [change["completed"] for change in bar.changes if "completed" in change]
    assert completed == sorted(completed)
    assert completed[-1] == 24
    assert bar.changes[-1]["samples"] == 12
    assert totals == {"one": [24], "list": [24, 24], "generator": []}[batches]


def test_progress_is_shown_when_it_takes_long(monkeypatch, capsys):
    pytest.importorskip("rich")
    options = {"verbose": True, **OPTIONS}
    ft.measure(network(), X, Y, **options)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(watching, "_PATIENCE", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich shows no bars in what is no terminal
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    ft.measure(network(), X, Y, **options)
    shown = capsys.readouterr().err
    assert "measuring" in shown
    assert "12 samples" in shown or "0 samples" in shown
