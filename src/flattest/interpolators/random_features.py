"""Random features: the first layer stays at its random start, the second interpolates."""

from __future__ import annotations

from flattest.interpolators.output_layer import least_norm
from flattest.interpolators.result import Outcome, Problem
from flattest.interpolators.run import construct


def random_features(problem: Problem) -> Outcome:
    """Fit the output layer of least norm over directions drawn from ``N(0, I)``.

    It interpolates only where the width is at least the number of samples, but for exceptional
    data. On multi-index data it is not expected to generalise: no direction is learnt.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.

    Returns
    -------
    Outcome
        The network.

    References
    ----------
    A. Rahimi, B. Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007.
    """
    W = problem.normal(problem.width, problem.X.shape[1])
    features = problem.activation(problem.X @ W.T)
    a = least_norm(features, problem.y)
    a = a + least_norm(features, problem.y - features @ a)  # what rounding has left over
    return construct(problem, W, a, {})
