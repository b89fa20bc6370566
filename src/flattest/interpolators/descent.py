"""Full-batch descent to zero training loss from given parameters, and what it measures on its way.

Every method that trains by gradients ends here.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from flattest.interpolators.result import Iterate, Outcome, Problem, Status
from flattest.two_layer.closed_form import orbit_minimum
from flattest.two_layer.networks import TwoLayerNet

REPORTS = 200
"""Lines in the history of a descent, about."""
_DEFAULT_MAX_ITER = 50_000
_FIRST_POWER_STEPS = 20
_MARGIN = 1.2
_EARLY_MOMENTUM, _EARLY = 0.9, 1e-2
"""Strong momentum while the error is large shrinks a large network towards zero, which plain
gradient descent does not do; below this share of the targets' size it only saves time."""
_LEAST_CAUTION = 1e-6


def starting_point(
    problem: Problem, init_scale: float, start: TwoLayerNet | None
) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Return the parameters of `start`, or Gaussian ones of standard deviation `init_scale`.

    Parameters
    ----------
    problem : Problem
        The problem.
    init_scale : float
        Unused where there is a `start`.
    start : TwoLayerNet or None
        A network for the same data.

    Returns
    -------
    W, a : Tensor
        Of shapes (m, d) and (m,), float64.

    Raises
    ------
    ValueError
        If `start` is no network for this problem.
    """
    (_, d), m = problem.X.shape, problem.width
    if start is None:
        return init_scale * problem.normal(m, d), init_scale * problem.normal(m)
    if start.n_features != d or start.activation != problem.activation:
        raise ValueError(
            f"start must have {d} features and the activation {problem.activation!r} like the "
            f"problem, but has {start.n_features} and {start.activation!r}."
        )
    if start.width > m:
        raise ValueError(f"start has {start.width} neurons, more than width={m}; raise width.")
    parameters = (start.weights.detach(), start.coefficients.detach())
    W, a = (values.to(problem.X, copy=True) for values in parameters)
    return W, a


def descend_to_zero(
    problem: Problem,
    W: Float[Tensor, "m d"],
    a: Float[Tensor, " m"],
    history: list[Iterate] | None = None,
) -> Outcome:
    """Minimise the training loss by Nesterov's method with restarts.

    The step is one over the largest curvature of the loss, which is estimated anew as the network
    moves; the momentum restarts whenever it points uphill.

    Parameters
    ----------
    problem : Problem
        The problem.
    W, a : Tensor
        Where to start, of shapes (m, d) and (m,).
    history : list of Iterate, optional
        What went before; it is continued.

    Returns
    -------
    Outcome
        The network, with `Status.CONVERGED` once the training loss is at most the target.
    """
    X, y, act = problem.X, problem.y, problem.activation
    n = len(X)
    history = [] if history is None else history
    done = history[-1].iteration + 1 if history else 0
    limit = problem.max_iter or _DEFAULT_MAX_ITER
    every = max(1, limit // REPORTS)
    ahead_W, ahead_a, inertia = W, a, 1.0
    safe_W, safe_a, safe_error, caution = W, a, math.inf, 1.0
    probe, first_probe = problem.normal(n), _FIRST_POWER_STEPS
    fitted = _EARLY * float(y.square().mean())
    status, iteration = Status.NOT_INTERPOLATING, 0
    try:
        for iteration in range(limit):
            z = X @ ahead_W.T
            s, gates = act(z), act.derivative(z) * ahead_a
            residual = s @ ahead_a - y
            error = float(residual.square().mean())
            if error <= problem.target_error:
                W, a, status = ahead_W, ahead_a, Status.CONVERGED
                break
            if not error <= 10 * safe_error:
                # The curvature outran the step: go back and be more careful.
                caution, inertia = caution / 2, 1.0
                W, a, ahead_W, ahead_a = safe_W, safe_a, safe_W, safe_a
                if caution < _LEAST_CAUTION:
                    status = Status.DIVERGED
                    break
                continue
            if error < safe_error:
                safe_W, safe_a, safe_error = ahead_W, ahead_a, error
            probe, curvature = largest_curvature(X, s, gates, probe, first_probe)
            rate, first_probe = caution / curvature, 1
            if iteration % every == 0:
                record(problem, history, W, a, done + iteration, done + limit)
            gradient_W = (gates * residual[:, None]).T @ X * (2 / n)
            gradient_a = s.T @ residual * (2 / n)
            new_W, new_a = ahead_W - rate * gradient_W, ahead_a - rate * gradient_a
            uphill = (gradient_W * (new_W - W)).sum() + (gradient_a * (new_a - a)).sum() > 0
            inertia = 1.0 if uphill else inertia
            following = (1 + math.sqrt(1 + 4 * inertia**2)) / 2
            momentum = (inertia - 1) / following
            if error > fitted:
                momentum = min(momentum, _EARLY_MOMENTUM)
            ahead_W = new_W + momentum * (new_W - W)
            ahead_a = new_a + momentum * (new_a - a)
            W, a, inertia = new_W, new_a, following
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    if status is not Status.CONVERGED:
        W, a = safe_W, safe_a
    record(problem, history, W, a, done + iteration, done + limit)
    return Outcome(W, a, status, history)


def largest_curvature(
    X: Float[Tensor, "n d"],
    s: Float[Tensor, "n m"],
    gates: Float[Tensor, "n m"],
    vector: Float[Tensor, " n"],
    steps: int,
) -> tuple[Float[Tensor, " n"], float]:
    """Largest eigenvalue of ``(2/n) J J^T``, with a margin, by power iteration from `vector`.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        The inputs.
    s, gates : Tensor of shape (n, m)
        ``s(z_ij)`` and ``a_j s'(z_ij)``, of which ``J`` consists.
    vector : Tensor of shape (n,)
        Where the iteration starts.
    steps : int
        The number of iterations.

    Returns
    -------
    vector : Tensor of shape (n,)
        Near the eigenvector.
    curvature : float
        Positive.
    """
    for _ in range(steps):
        pulled = (gates * (X @ ((gates * vector[:, None]).T @ X).T)).sum(dim=1)
        following = pulled + s @ (s.T @ vector)
        size = float(following.norm())
        if size == 0:
            break
        value, vector = size / float(vector.norm()), following / size
    else:
        return vector, _MARGIN * 2 * value / len(X)
    return vector, 1.0


def record(
    problem: Problem,
    history: list[Iterate],
    W: Float[Tensor, "m d"],
    a: Float[Tensor, " m"],
    iteration: int,
    expected: int,
    stage: str = "descent",
) -> None:
    """Add a line to the history, and show it to whoever watches.

    Parameters
    ----------
    problem : Problem
        The problem.
    history : list of Iterate
        Gets the line.
    W, a : Tensor
        The network, of shapes (m, d) and (m,).
    iteration, expected : int
        Where the method is, and where it will end at the latest.
    stage : str
        What it is doing.
    """
    X, act = problem.X, problem.activation
    z = X @ W.T
    s = act(z)
    outer = s.square().mean(dim=0)
    inner = a.square() * (X.square().sum(dim=1) @ act.derivative(z).square()) / len(X)
    entry = Iterate(
        iteration=iteration,
        train_error=float((s @ a - problem.y).square().mean()),
        trace=float(2 * (outer + inner).sum()),
        orbit_minimum=float(2 * orbit_minimum(outer, inner, act.degree).sum()),
        strength=0.0,
        stage=stage,
    )
    history.append(entry)
    problem.report(entry, expected)
    if problem.watch is not None:
        problem.watch(entry, TwoLayerNet(W, a, act))
