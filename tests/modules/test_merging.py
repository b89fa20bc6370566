"""Parts of a data set, measured one by one or in processes of their own, and merged."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

import flattest as ft

C = 4
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(12, 3, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(0, C, (12,), generator=GENERATOR)


def network(seed=0, activation=nn.ReLU):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 5), activation(), nn.Linear(5, C)).double()


def parts_of(model, sizes, **options):
    return [
        ft.measure(model, x, y, random_state=number, **options)
        for number, (x, y) in enumerate(zip(X.split(sizes), Y.split(sizes), strict=True))
    ]


LOSSES = {
    "mean": (nn.CrossEntropyLoss, False),
    "sum": (lambda: nn.CrossEntropyLoss(reduction="sum"), True),
    "weights": (lambda: nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 4.0, 0.5])), False),
    "ignored": (lambda: nn.CrossEntropyLoss(ignore_index=1), False),
}


@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 11), min_size=1, max_size=3, unique=True).map(sorted),
    st.sampled_from(sorted(LOSSES)),
)
def test_parts_make_the_whole(cuts, name):
    make, summed = LOSSES[name]
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
    kept = [
        size
        for size, y in zip(sizes, Y.split(sizes), strict=True)
        if name != "ignored" or (y != 1).any()
    ]
    if len(kept) < len(sizes):
        return  # a part of ignored targets only is refused when it is measured
    model = network()
    options = {"loss": make(), "panel": True}
    whole = ft.measure(model, X, Y, **options)
    merged = ft.Flatness.merge(iter(parts_of(model, sizes, **options)))
    for figure in ("loss", "trace", "gauss_newton", "residual", "adaptive", "fisher_rao"):
        assert getattr(merged, figure) == pytest.approx(
            getattr(whole, figure), rel=1e-12, abs=1e-15
        )
    assert merged.n_samples == 12
    assert merged.normaliser == pytest.approx(whole.normaliser)
    assert merged.summed is summed
    assert merged.provenance["trace"] == whole.provenance["trace"]
    for one, other in zip(merged.layers, whole.layers, strict=True):
        for value, expected in zip(one, other, strict=True):
            if isinstance(value, float):
                assert value == pytest.approx(expected, rel=1e-12, abs=1e-15, nan_ok=True)
            else:
                assert value == expected
    for key, values in whole.diagonal().items():
        torch.testing.assert_close(merged.diagonal()[key], values, rtol=1e-12, atol=1e-15)


def test_merging_is_associative():
    parts = parts_of(network(activation=nn.GELU), [3, 4, 5], loss="cross_entropy")
    nested = ft.Flatness.merge([ft.Flatness.merge(parts[:2]), parts[2]])
    flat = ft.Flatness.merge(parts)
    assert nested.trace == pytest.approx(flat.trace, rel=1e-12)
    assert ft.Flatness.merge(parts[:1]).trace == parts[0].trace


class Around(nn.Module):
    """A layer with a way around it, whose residual part has no closed form."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return x + nn.functional.gelu(self.layer(x))


def test_standard_errors_add_in_quadrature():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Linear(3, 6), nn.GELU(), Around(6), Around(6)),
            *(nn.Linear(6, 120), nn.LeakyReLU(0.9)),
        ).double()
    parts = parts_of(
        model, [4, 8], loss="cross_entropy", mode="sampled", residual="estimate", rtol=0.1
    )
    merged = ft.Flatness.merge(parts)
    for figure in ("gauss_newton", "residual", "trace", "adaptive"):
        errors = [part.standard_error[figure] for part in parts]
        expected = math.hypot(errors[0] * 4 / 12, errors[1] * 8 / 12)
        assert merged.standard_error[figure] == pytest.approx(expected)
        assert not merged.provenance[figure].exact
    # One exact part leaves the other's error; one without a known error leaves none.
    exact = ft.measure(model, X[:4], Y[:4], loss="cross_entropy", mode="exact", residual="estimate")
    assert ft.Flatness.merge([exact, parts[1]]).standard_error["gauss_newton"] == pytest.approx(
        parts[1].standard_error["gauss_newton"] * 8 / 12
    )
    vague = replace(
        parts[0],
        provenance={
            **parts[0].provenance,
            "loss": parts[0].provenance["loss"]._replace(exact=False),
        },
    )
    assert "loss" not in ft.Flatness.merge([vague, parts[1]]).standard_error


def test_what_one_part_lacks_the_whole_lacks():
    model = network(activation=nn.GELU)
    one = ft.measure(model, X[:4], Y[:4], loss="cross_entropy", largest_eigenvalue="hessian")
    other = ft.measure(model, X[4:], Y[4:], loss="cross_entropy", residual="none")
    merged = ft.Flatness.merge([one, other])
    assert math.isnan(merged.trace)
    assert not merged.provenance["trace"].exact
    assert "residual='none'" in merged.provenance["trace"].why
    assert "trace of the Hessian" not in repr(merged)
    assert math.isnan(merged.largest_eigenvalue)
    assert "those of parts" in merged.provenance["largest_eigenvalue"].why
    without = replace(one, diagonals=None)
    with pytest.raises(ValueError, match="kept no diagonal"):
        ft.Flatness.merge([without, other]).diagonal()
    assert ft.Flatness.merge([replace(one, partial=True), other]).partial


def of_function(z, y):
    return F.cross_entropy(z, y)


def test_a_function_as_a_loss_needs_weights():
    model = network()
    parts = parts_of(model, [5, 7], loss=of_function)
    with pytest.raises(ValueError, match="What the loss of_function is divided by is not known"):
        ft.Flatness.merge(parts)
    whole = ft.measure(model, X, Y, loss=of_function)
    merged = ft.Flatness.merge(parts, weights=[5 / 12, 7 / 12])
    assert merged.trace == pytest.approx(whole.trace, rel=1e-12)


MODEL = network()
ONE = ft.measure(MODEL, X, Y, loss="cross_entropy")
REFUSED = {
    "nothing": ([], ValueError, "at least one"),
    "two-layer network": (
        [ft.measure(ft.TwoLayerNet([[2.0]], [0.5], "relu"), [[3.0]], [3.0])],
        TypeError,
        "measure the network in one call, on all batches",
    ),
    "another loss": (
        [ONE, ft.measure(MODEL, X, X @ torch.ones(3, C).double())],
        ValueError,
        r"parts\[1\] has the loss mse, but parts\[0\] has cross_entropy",
    ),
    "a sum and a mean": (
        [ONE, ft.measure(MODEL, X, Y, loss=nn.CrossEntropyLoss(reduction="sum"))],
        ValueError,
        "has the loss CrossEntropyLoss",
    ),
    "other parameters": (
        [ONE, ft.measure(MODEL, X, Y, loss="cross_entropy", parameters=["0.*", "2.bias"])],
        ValueError,
        "the number of parameters",
    ),
    "other names": (
        [ft.measure(MODEL, X, Y, loss="cross_entropy", parameters=[f"{k}.weight"]) for k in (0, 2)],
        ValueError,
        "parameters",
    ),
    "another model": (
        [ONE, ft.measure(network(1), X, Y, loss="cross_entropy")],
        ValueError,
        "measured with another 0.weight",
    ),
    "another dtype": (
        [ONE, ft.measure(network().float(), X.float(), Y, loss="cross_entropy")],
        ValueError,
        "the dtype torch.float32",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_is_refused(name):
    parts, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        ft.Flatness.merge(parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", [[1.0], [0.5, -0.5], [0.5, math.nan], [0.5, math.inf]])
def test_weights_are_checked(weights):
    with pytest.raises(ValueError, match="weights must be 2 numbers"):
        ft.Flatness.merge([ONE, ONE], weights=weights)


PROCESSES = """
import os, sys, torch, torch.distributed as dist, flattest as ft

store, out = sys.argv[1:]
child = os.fork()  # as PyTorch takes seconds to load
rank = int(child == 0)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)  # the same model everywhere
model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.GELU(), torch.nn.Linear(5, 4)).double()
X, y = torch.randn(12, 3).double(), torch.randint(0, 4, (12,))
data = torch.utils.data.TensorDataset(X, y)
own = torch.utils.data.Subset(data, range(rank, 12, 2))
loader = torch.utils.data.DataLoader(own, batch_size=4)
part = ft.measure(model, loader, loss="cross_entropy", residual="exact", random_state=rank)
parts = [None, None]
dist.all_gather_object(parts, part)
merged = ft.Flatness.merge(parts)
if rank == 0:
    whole = ft.measure(model, X, y, loss="cross_entropy", residual="exact")
    assert merged.n_samples == 12 and part.n_samples == 6
    torch.save([merged.trace, whole.trace, merged.diagonal(), whole.diagonal()], out)
dist.destroy_process_group()
if rank == 0:
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_two_processes(tmp_path: Path):
    arguments = [str(tmp_path / "store"), str(tmp_path / "out.pt")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROCESSES, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    merged, whole, diagonal, expected = torch.load(arguments[1], weights_only=True)
    assert merged == pytest.approx(whole, rel=1e-12)
    for name, values in expected.items():
        torch.testing.assert_close(diagonal[name], values, rtol=1e-12, atol=1e-15)
