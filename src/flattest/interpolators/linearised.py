"""Lazy training: a network so large that it stays at its start and only its tangent is fitted."""

from __future__ import annotations

import math

import torch

from flattest.interpolators.descent import record
from flattest.interpolators.result import Iterate, Outcome, Problem, Status
from flattest.interpolators.run import finish, hand_back
from flattest.interpolators.second_order import solve_regularised

_DEFAULT_MAX_ITER = 50
_MAX_HALVINGS = 20
_FRESH = 1000


def linearised(problem: Problem, *, scale: float = 100.0) -> Outcome:
    r"""Realise the interpolator of least norm of the tangent kernel by a lazy network.

    The network starts at :math:`(c / \sqrt m) \sum_j a_j s(w_j \cdot x)` with standard normal
    parameters (``x`` in units of its root mean square length), in pairs of opposite ``a_j`` so
    that its output is 0. Gauss-Newton steps of least length take it to zero loss. They move the
    parameters by ``O(1 / c)``, so that the function is the interpolator of the tangent kernel up
    to ``O(1 / c)``, while the trace grows with ``c``. With ``n`` of the order of ``d`` it is not
    expected to generalise on multi-index data: no direction is learnt.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.
    scale : float
        The factor ``c``, for targets of unit size.

    Returns
    -------
    Outcome
        The network. Note ``distance_from_kernel`` is its root mean squared distance from the
        tangent kernel's interpolator on 1000 Gaussian inputs with the mean and covariance of
        ``X``, relative to the size of the latter.

    Raises
    ------
    ValueError
        If the width is 1, which leaves no pair.

    References
    ----------
    A. Jacot, F. Gabriel, C. Hongler, "Neural Tangent Kernel: Convergence and Generalization in
    Neural Networks", NeurIPS 2018.

    L. Chizat, E. Oyallon, F. Bach, "On Lazy Training in Differentiable Programming",
    NeurIPS 2019.
    """
    pairs, act = problem.width // 2, problem.activation
    if pairs == 0:
        raise ValueError("width must be at least 2 for method 'linearised', not 1.")
    length = float(problem.X.square().sum(dim=1).mean().sqrt())
    size = float(problem.y.square().mean().sqrt())
    X, target = problem.X / length, problem.y / size
    fresh = problem.similar_inputs(_FRESH) / length
    W, a = problem.normal(pairs, X.shape[1]).repeat(2, 1), problem.normal(pairs).repeat(2)
    a[pairs:] *= -1
    start_W, start_a = W, a
    factor = scale / math.sqrt(len(a))
    products, tangent = X @ X.T, torch.zeros(len(fresh)).to(X)
    limit = problem.max_iter or _DEFAULT_MAX_ITER
    history: list[Iterate] = []
    interrupted = False
    try:
        for iteration in range(limit):
            z = X @ W.T
            s, gates = act(z), act.derivative(z) * a
            residual = target - factor * s @ a
            error = float(residual.square().mean())
            record(problem, history, W / length, factor * size * a, iteration, limit, "tangent")
            if error <= min(problem.tol, 1e-20):
                break
            dual = solve_regularised(products * (gates @ gates.T) + s @ s.T, residual / factor, 0.0)
            move_W, move_a = (gates * dual[:, None]).T @ X, s.T @ dual
            if iteration == 0:
                z0 = fresh @ start_W.T
                tangent = (act.derivative(z0) * start_a * (fresh @ move_W.T)).sum(dim=1)
                tangent = factor * (tangent + act(z0) @ move_a)
            step = 1.0
            for _ in range(_MAX_HALVINGS):
                f = factor * act(X @ (W + step * move_W).T) @ (a + step * move_a)
                if float((target - f).square().mean()) < error:
                    break
                step /= 2
            else:
                break
            W, a = W + step * move_W, a + step * move_a
    except KeyboardInterrupt:
        interrupted = True
    finished = finish(problem, W / length, factor * size * a)
    fits = finished.flatness.loss <= problem.target_error
    status = Status.CONVERGED if fits else Status.NOT_INTERPOLATING
    off = factor * act(fresh @ W.T) @ a - tangent
    away = float(off.norm() / tangent.norm()) if bool(tangent.any()) else math.nan
    return hand_back(
        finished,
        Status.INTERRUPTED if interrupted else status,
        history,
        {"distance_from_kernel": away},
    )
