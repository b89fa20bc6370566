"""What is said to foretell the generalisation gap, measured on one trained network."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from flattest.measuring import measure
from flattest.uses.digits import N_CLASSES, Split
from flattest.uses.fitting import scores

MEASURES = {
    "trace": "trace",
    "minimum_over_scales": "orbit minimum, scales",
    "minimum_over_groups": "orbit minimum, all groups",
    "relative_flatness": "relative flatness",
    "adaptive": "adaptive flatness",
    "fisher_rao": "Fisher-Rao norm",
    "largest_eigenvalue": "largest eigenvalue",
    "weight_norm": "weight norm",
    "small_margin": "small margin",
    "train_loss": "training loss",
}
"""The measures, each so that more of it is to mean a larger gap."""
N_MEASURED = 400
"""The training samples that curvature is taken on."""


def measures(
    net: nn.Module, data: Split, *, label_noise: float, groups: bool, random_state: int
) -> dict[str, Any]:
    """Take all measures and the gap.

    Parameters
    ----------
    net : torch.nn.Module
        A network that was trained on cross-entropy, in float64 and evaluation mode.
    data : Split
        What it was trained on, and the test samples.
    label_noise : float
        The share of wrong training labels.
    groups : bool
        Whether it has linear groups, so that the minimum over them is another figure.
    random_state : int
        For the start of Lanczos' method.

    Returns
    -------
    dict
        By the names of `MEASURES`; the gap, and the errors that it is made of.
    """
    X, y = data.X[:N_MEASURED], data.y[:N_MEASURED]
    options: dict[str, Any] = {"loss": "cross_entropy", "residual": "none"}
    found = measure(
        net,
        X,
        y,
        symmetry="scales",
        panel=True,
        largest_eigenvalue="gauss_newton",
        random_state=random_state,
        **options,
    )
    over_groups = found.orbit_minimum
    if groups:
        over_groups = measure(net, X, y, symmetry="all", **options).orbit_minimum
    with torch.no_grad():
        logits = net(data.X)
        own = logits.gather(1, data.y[:, None])[:, 0]
        others = logits.scatter(1, data.y[:, None], -math.inf).amax(1)
    train, test = scores(net, data.X, data.y), scores(net, data.X_test, data.y_test)
    expected = noisy_error(test.error, label_noise)
    relative = [layer.relative_flatness for layer in found.layers]
    return {
        "trace": found.gauss_newton,
        "minimum_over_scales": found.orbit_minimum,
        "minimum_over_groups": over_groups,
        "relative_flatness": math.fsum(value for value in relative if not math.isnan(value)),
        "adaptive": found.adaptive,
        "fisher_rao": found.fisher_rao,
        "largest_eigenvalue": found.largest_eigenvalue,
        "weight_norm": math.fsum(layer.squared_norm for layer in found.layers),
        "small_margin": -float((own - others).quantile(0.1)),
        "train_loss": train.loss,
        "train_error": train.error,
        "test_error": test.error,
        "test_loss": test.loss,
        "gap": expected - train.error,
        "n_parameters": found.n_parameters,
    }


def noisy_error(error: float, label_noise: float) -> float:
    r"""Return the expected error on test samples whose labels are as wrong as those trained on.

    With the share p of labels replaced by one of the c - 1 other classes, an error e on true
    labels becomes :math:`(1 - p) e + p (1 - e / (c - 1))`.

    Parameters
    ----------
    error : float
        The error on true labels.
    label_noise : float
        The share of wrong labels.

    Returns
    -------
    float
        The gap compares it with the training error, for both are about the same law of labels.

    Examples
    --------
    >>> from flattest.uses.measures import noisy_error
    >>> round(noisy_error(0.0, 0.1), 12), round(noisy_error(0.9, 0.1), 12)
    (0.1, 0.9)
    """
    return (1 - label_noise) * error + label_noise * (1 - error / (N_CLASSES - 1))
