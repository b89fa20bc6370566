"""Full-batch gradient descent on the training loss: the baseline, from a small or a large start."""

from __future__ import annotations

from flattest.interpolators.descent import descend_to_zero, starting_point
from flattest.interpolators.result import Outcome, Problem
from flattest.two_layer.networks import TwoLayerNet


def gradient_descent(
    problem: Problem, *, init_scale: float = 0.1, start: TwoLayerNet | None = None
) -> Outcome:
    """Fit by Nesterov's method on the loss alone, on all parameters.

    From a small start the directions adapt to the data, and on multi-index data with enough
    samples it may generalise; from a large one the network stays near its linearisation (the lazy
    regime), and it is not expected to.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.
    init_scale : float
        Standard deviation of all initial parameters; large values, about 1, give the lazy regime.
    start : TwoLayerNet, optional
        Where to start instead, with at most `width` neurons.

    Returns
    -------
    Outcome
        The network.

    References
    ----------
    L. Chizat, E. Oyallon, F. Bach, "On Lazy Training in Differentiable Programming", NeurIPS
    2019.
    """
    return descend_to_zero(problem, *starting_point(problem, init_scale, start))
