"""Memory that is limited, and counted as it is: by the tensors that work allocates."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import flattest as ft
from flattest.modules import columns as columns_file
from flattest.modules.memory import Line, peak

CPU = torch.device("cpu")
MB = 10**6


def test_what_lives_together_counts():
    def work():
        one = torch.zeros(MB // 4)
        two = one + 1
        del one
        three = two * 2  # in the place of the first
        return three[:10].clone()

    assert 2 * MB <= peak(work, CPU) < 2.1 * MB


def test_views_and_what_was_there_before_do_not_count():
    data, weight = torch.zeros(MB), torch.zeros(MB)
    assert peak(lambda: data.reshape(-1, 10)[:5].T + weight[:5], CPU) < 10_000


def test_saved_tensors_and_batched_backward_passes_count():
    x = torch.zeros(MB // 4, requires_grad=True)

    def forward():
        return x.exp().sin()

    assert 2 * MB <= peak(lambda: forward().sum(), CPU) < 3.1 * MB
    columns = torch.ones(5, MB // 4)

    def backward():
        z = forward()
        return torch.autograd.grad(z, x, columns, is_grads_batched=True)

    assert 7 * MB <= peak(backward, CPU) < 20 * MB


def test_one_sample_too_many_is_refused():
    line = Line.through((1, 4), (10 * MB, 16 * MB))
    assert (line.fixed, line.slope) == (8 * MB, 2 * MB)
    assert line.samples(30 * MB) == 9
    with pytest.raises(ValueError, match=r"one sample takes about 11\.0 MB beside the model"):
        line.samples(10 * MB)
    assert Line.through((1,), (MB,)) == Line(0.0, MB)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 256, 4),
        )


X = torch.randn(24, 1, 16, 16, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 4, (24,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("residual", ["none", "estimate"])
def test_the_work_stays_within_the_memory(residual):
    options = {"loss": "cross_entropy", "residual": residual, "random_state": 0}
    free = peak(lambda: ft.measure(network(), X, Y, **options), CPU)
    limit = free // 4
    held = peak(lambda: ft.measure(network(), X, Y, memory=limit, **options), CPU)
    # Beside the limit there are the diagonal, in float64, and the copies of the batch.
    model = network()
    beside = 2 * 8 * sum(p.numel() for p in model.parameters()) + 3 * X.nbytes
    assert held <= limit + beside < free
    found = ft.measure(network(), X, Y, memory=limit, **options)
    whole = ft.measure(network(), X, Y, **options)
    assert found.gauss_newton == pytest.approx(whole.gauss_newton, rel=1e-5)


def test_a_resnet_takes_little_memory_sample_by_sample():
    """ResNet-20 on images of 32 x 32: the whole diagonal within 60 MB."""
    path = Path(__file__).parents[2] / "benchmarks" / "trace_problems.py"
    spec = importlib.util.spec_from_file_location("trace_problems", path)
    problems = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(problems)
    model, X, y, loss = problems.make("ResNet-20")
    options = {"loss": loss, "mode": "exact", "residual": "none", "batch_size": 1}
    held = peak(lambda: ft.measure(model, X[:2], y[:2], **options), CPU)
    inputs_of_layers = 4 * 19 * 16 * 32 * 32 / 2  # bytes for one image, roughly, which it must hold
    assert inputs_of_layers < held <= 60 * MB


class Classes(nn.Sequential):
    """Classes along axis 1, as losses of PyTorch take them."""

    def forward(self, x):
        return super().forward(x).mT


def test_longer_sequences_take_smaller_parts(monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classes(nn.Embedding(5, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))
        batches = [torch.randint(0, 5, (16, length)) for length in (4, 16)]
    steps = []
    original = columns_file.Columns.add

    def recorded(self, part, residual):
        part = original(self, part, residual)
        steps.append(part.step)
        return part

    monkeypatch.setattr(columns_file.Columns, "add", recorded)

    data = [(x, x) for x in batches]
    options = {"loss": "cross_entropy", "mode": "exact", "residual": "none"}
    found = ft.measure(model, data, memory="1 MB", **options)
    assert 1 <= steps[1] < steps[0] <= 16
    whole = ft.measure(model, data, **options)
    assert found.gauss_newton == pytest.approx(whole.gauss_newton, rel=1e-5)


@pytest.mark.parametrize(
    ("memory", "error", "message"),
    [
        ("2 apples", ValueError, "memory must be a size such as '2 GiB'"),
        ("", ValueError, "memory must be a size"),
        (0, ValueError, "memory must be at least 1"),
        (1.5, TypeError, "memory"),
        ("1 kB", ValueError, "one sample takes about"),
    ],
)
def test_bad_limits(memory, error, message):
    with pytest.raises(error, match=message):
        ft.measure(network(), X, Y, loss="cross_entropy", memory=memory)


def test_one_limit_only():
    with pytest.raises(ValueError, match="memory chooses batch_size; give one of the two"):
        ft.measure(network(), X, Y, loss="cross_entropy", memory="1 GB", batch_size=2)
