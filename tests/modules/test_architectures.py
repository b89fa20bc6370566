"""The exact Gauss-Newton diagonal of every supported kind of module, against dense autograd."""

import re
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES
from gauss_newton import diagonal

from flattest.modules.measuring import measure
from flattest.modules.outputs import select

TOLERANCE = 1e-10


def errors(measured, expected):
    """Return the largest error of each tensor, relative to its largest entry.

    Squares of what is zero but for rounding are no larger than 1e-24 of the rest.
    """
    zero = 1e-24 * max(float(values.abs().max()) for values in expected.values())
    return {
        name: float((measured[name] - values).abs().max() / (values.abs().max() + zero / TOLERANCE))
        for name, values in expected.items()
    }


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_diagonal_against_dense_autograd(name, n):
    model, inputs = ARCHITECTURES[name](n)
    with torch.no_grad():
        logits = select(model(*(x.clone() for x in inputs)), None)
    targets = torch.randn(logits.shape, dtype=torch.float64).tanh()

    def loss(z, y):
        # Every entry has a curvature of its own, so that a wrong column shows.
        return ((z - y) ** 4 / 12 + (z - y) ** 2).sum() / len(y)

    expected = diagonal(model, inputs, lambda z: loss(z, targets))
    measured = measure(model, inputs, targets, loss=loss)
    found = errors(measured.diagonal(), expected)
    assert max(found.values()) <= TOLERANCE, found
    total = sum(values.sum() for values in expected.values())
    assert measured.gauss_newton == pytest.approx(float(total), rel=TOLERANCE)


def test_the_documentation_names_what_is_tested():
    text = (Path(__file__).parents[2] / "docs" / "modules.md").read_text("utf-8")
    listed = text.partition("## Supported modules")[2]
    names = re.findall(r"^- (.*)$", listed, flags=re.MULTILINE)
    assert names == list(ARCHITECTURES)
