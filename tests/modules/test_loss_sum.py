"""The loss alone: what a measurement says it is, whatever its form and the batches."""

import pytest
import torch
from torch import nn

import flattest as ft
from flattest.modules.measuring import mean_loss

with torch.random.fork_rng():
    torch.manual_seed(0)
    NET = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).double()
    X, TARGETS = torch.randn(11, 4).double(), torch.randn(11, 3).double()
    LABELS = torch.randint(0, 3, (11,))

LOSSES = {
    "mean": ("mse", TARGETS),
    "by name": ("cross_entropy", LABELS),
    "sum": (nn.MSELoss(reduction="sum"), TARGETS),
    "weights": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double()), LABELS),
    "ignored": (nn.CrossEntropyLoss(ignore_index=1), LABELS),
    "function": (lambda z, y: (z - y).abs().pow(1.5).mean(), TARGETS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_it_is_that_of_a_measurement_and_of_pytorch(name):
    loss, y = LOSSES[name]
    batches = [(X[:4], y[:4]), (X[4:], y[4:])]
    found = mean_loss(NET, batches, loss=loss)
    measured = ft.measure(NET, batches, loss=loss, residual="none").loss
    assert found == pytest.approx(measured, rel=1e-14)
    named = {"mse": nn.MSELoss(), "cross_entropy": nn.CrossEntropyLoss()}
    whole = (named[loss] if isinstance(loss, str) else loss)(NET(X), y)
    assert found == pytest.approx(whole.item(), rel=1e-12)


def test_a_loss_of_model_and_batch():
    def loss(model, batch):
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    found = mean_loss(NET, [{"x": X, "y": TARGETS}], loss=loss)
    whole = nn.functional.mse_loss(NET(X), TARGETS)
    assert found == pytest.approx(whole.item(), rel=1e-12)


def test_probabilities_in_place_of_logits_are_said():
    twice = nn.Sequential(NET, nn.Softmax(1))
    with pytest.warns(UserWarning, match="leave the model's last softmax out"):
        mean_loss(twice, [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])], loss="cross_entropy")
    mean_loss(twice, X, TARGETS)  # with a squared error they are as good as any outputs


def test_nothing_that_counts_is_said():
    with pytest.raises(ValueError, match="counts no sample"):
        mean_loss(NET, X[:1], LABELS[:1], loss=nn.CrossEntropyLoss(ignore_index=int(LABELS[0])))
    with pytest.raises(ValueError, match="eval"):
        mean_loss(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), X.float(), LABELS)
