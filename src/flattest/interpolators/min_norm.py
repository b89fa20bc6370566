"""The interpolator of least parameter norm: the limit of weight decay that goes to zero."""

from __future__ import annotations

from flattest.interpolators.parameter_norm import ParameterNorm, squared_norm
from flattest.interpolators.result import Outcome, Problem, Status
from flattest.interpolators.run import Run
from flattest.interpolators.search import explore
from flattest.two_layer.closed_form import orbit_scales


def min_norm(problem: Problem) -> Outcome:
    r"""Find the interpolator of least ``sum_j (||w_j||**2 + a_j**2)``, up to local minima.

    For ``p = 1`` the least over the rescalings is twice the path norm
    :math:`\sum_j |a_j| \|w_j\|`. The solver is that of ``"flattest"`` with the identity as the
    metric of every neuron; it needs an ``n x n`` matrix. The network comes back where its norm is
    least on the rescaling orbit. On multi-index data it is expected to generalise: the norm, too,
    charges for every neuron, though not for how often it fires.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.

    Returns
    -------
    Outcome
        The network; the notes hold its ``squared_norm``.

    References
    ----------
    P. Savarese, I. Evron, D. Soudry, N. Srebro, "How Do Infinite Width Bounded Norm Networks Look
    in Function Space?", COLT 2019.

    R. Parhi, R. D. Nowak, "Banach Space Representer Theorems for Neural Networks and Ridge
    Splines", JMLR 22, 2021.
    """
    p = problem.activation.degree
    run = Run(problem, default_max_iter=100 if p == 1 else 300, isotropic=False)
    goal = ParameterNorm(run.data, problem.activation)
    candidates, interrupted = explore(run, goal, goal)
    fitting = [each for each in candidates if each.flatness.loss <= problem.target_error]
    if fitting:
        best = min(
            fitting,
            key=lambda each: squared_norm(
                each.finished.net.weights, each.finished.net.coefficients, p
            ),
        )
    else:
        best = min(candidates, key=lambda each: each.flatness.loss)
    status = Status.INTERRUPTED if interrupted else best.status(problem)
    net = best.finished.net
    outcome = run.outcome(
        best.finished, status, {"squared_norm": squared_norm(net.weights, net.coefficients, p)}
    )
    c = 1 / orbit_scales(outcome.coefficients.square(), outcome.weights.square().sum(dim=1), p)
    return outcome._replace(
        weights=outcome.weights * c[:, None], coefficients=outcome.coefficients * c**-p
    )
