"""SGD with fresh noise on the labels at every step, which drifts towards flat interpolators."""

from __future__ import annotations

import numpy as np

from flattest.interpolators.descent import starting_point
from flattest.interpolators.minibatch import Array, Minibatch, Pull, pull, train
from flattest.interpolators.options import NonNegative
from flattest.interpolators.result import Outcome, Problem
from flattest.two_layer.networks import TwoLayerNet

_STEPS = 100_000


def label_noise_sgd(
    problem: Problem,
    *,
    noise: NonNegative = 4.0,
    learning_rate: float | None = None,
    batch_size: int | None = 4,
    init_scale: float = 0.1,
    start: TwoLayerNet | None = None,
) -> Outcome:
    r"""Fit by SGD on labels to which fresh Gaussian noise is added at every step.

    .. math:: \theta \leftarrow \theta - \eta \nabla \tfrac1B \sum_{i \in B}
        (f(x_i) - y_i - \sigma \varepsilon_i)^2

    Near the interpolators the noise has the shape of the Hessian, and its mean effect is a drift
    along them down the trace, at a rate of the order of ``eta**2 sigma**2 / B`` per step. On
    multi-index data it is expected to generalise, given steps enough. The noise goes to zero over
    the last third of the steps.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them; `max_iter`
        bounds the steps, 100,000 by default, and the iterations of the final descent.
    noise : float
        Standard deviation of the label noise over the root mean square of the labels.
    learning_rate : float, optional
        By default 0.8 times the largest stable step, estimated anew as the network moves: the
        flatter the network, the longer the steps. It is our choice; the theory has it constant.
    batch_size : int, optional
        Samples per step; None for all of them.
    init_scale : float
        Standard deviation of all initial parameters.
    start : TwoLayerNet, optional
        Where to start instead, with at most `width` neurons.

    Returns
    -------
    Outcome
        The network, after a full-batch descent to zero loss.

    References
    ----------
    G. Blanc, N. Gupta, G. Valiant, P. Valiant, "Implicit Regularization for Deep Neural Networks
    Driven by an Ornstein-Uhlenbeck Like Process", COLT 2020.

    A. Damian, T. Ma, J. D. Lee, "Label Noise SGD Provably Prefers Flat Global Minimizers", NeurIPS
    2021.

    Z. Li, T. Wang, S. Arora, "What Happens after SGD Reaches Zero Loss? A Mathematical Framework",
    ICLR 2022.
    """
    size = noise * float(problem.y.square().mean().sqrt())

    def evaluate(batch: Minibatch, W: Array, a: Array, strength: float) -> Pull:
        pulled = pull(problem.activation, batch, W, a)
        fresh: Array = problem.normal(len(batch.y))
        if isinstance(batch.y, np.ndarray):
            fresh = fresh.numpy()
        return pulled._replace(residual=pulled.residual - strength * size * fresh)

    return train(
        problem,
        evaluate,
        *starting_point(problem, init_scale, start),
        batch_size=batch_size,
        learning_rate=learning_rate,
        steps=_STEPS,
        expected_error=1 + noise**2,
    )
