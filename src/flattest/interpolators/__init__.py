"""Interpolators: ways to bring the training loss of a two-layer network to zero.

Each way is one file with one function from a :class:`~flattest.interpolators.result.Problem` and
its own keyword arguments to an :class:`~flattest.interpolators.result.Outcome`; `METHODS` lists
them. To add one, write such a function and register it there.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from flattest.interpolators.flattest import flattest
from flattest.interpolators.gradient_descent import gradient_descent
from flattest.interpolators.label_noise_sgd import label_noise_sgd
from flattest.interpolators.linearised import linearised
from flattest.interpolators.memorizer import memorizer
from flattest.interpolators.min_norm import min_norm
from flattest.interpolators.options import check_options
from flattest.interpolators.penalised import penalised
from flattest.interpolators.poisoned import poisoned
from flattest.interpolators.random_features import random_features
from flattest.interpolators.result import Interpolation, Iterate, Outcome, Problem, Status
from flattest.interpolators.sam import sam
from flattest.interpolators.sgd import sgd
from flattest.progress import progress_bar
from flattest.two_layer.activations import Homogeneous, activation as get_activation
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet
from flattest.validation import (
    Like,
    check_matrix,
    check_positive_float,
    check_positive_int,
    check_random_state,
    check_range,
    check_vector,
)

__all__ = ["METHODS", "Interpolation", "Iterate", "Status", "interpolate"]

METHODS: dict[str, Callable[..., Outcome]] = {
    "flattest": flattest,
    "penalised": penalised,
    "gradient_descent": gradient_descent,
    "sgd": sgd,
    "label_noise_sgd": label_noise_sgd,
    "sam": sam,
    "min_norm": min_norm,
    "random_features": random_features,
    "linearised": linearised,
    "memorizer": memorizer,
    "poisoned": poisoned,
}
_HIGHEST_DEGREE = 20


def interpolate(
    X: Any,
    y: Any,
    method: str = "flattest",
    *,
    width: int = 200,
    activation: str | Homogeneous = "relu",
    random_state: Any = None,
    max_iter: int | None = None,
    tol: float = 1e-10,
    verbose: bool = False,
    callback: Callable[[Iterate, TwoLayerNet], None] | None = None,
    **options: Any,
) -> Interpolation:
    r"""Fit a two-layer network to zero training loss, by default the flattest one.

    .. math::
        \min_{a, W} \operatorname{tr} \nabla^2 L(a, W)
        \quad \text{subject to} \quad f(x_i) = y_i, \; i = 1, \dots, n,

    with ``L`` the mean squared error. It is not convex: what is found is a local solution, and
    ``result.flatness.ratio`` certifies how far it can be from the global one at most.

    Parameters
    ----------
    X : Tensor or array_like of shape (n, d)
        The inputs. The computation runs in float64 on their device; the network comes back in
        their dtype.
    y : Tensor or array_like of shape (n,)
        The targets.
    method : str
        Expected to generalise on multi-index data, because little flatness or norm is spent:

        - ``"flattest"``: the flattest network, by a second-order method with exact recovery.
        - ``"penalised"``: the same aim by Adam on the loss plus a penalty; for large data.
        - ``"min_norm"``: the network of least parameter norm, weight decay that goes to zero.

        It depends on the start, the noise and the length of the steps:

        - ``"gradient_descent"``: Nesterov's method on the loss alone, the baseline.
        - ``"sgd"``, ``"label_noise_sgd"``, ``"sam"``: stochastic descents that prefer flat minima.

        Not expected to generalise, or made not to:

        - ``"random_features"``: random first layer, least-norm second layer.
        - ``"linearised"``: lazy training, the interpolator of the tangent kernel.
        - ``"memorizer"``: our constructions that look the targets up.
        - ``"poisoned"``: the flattest network that also fits wrong labels elsewhere.

        ``help(flattest.interpolators.METHODS["memorizer"])`` shows what a method is, where it
        comes from and its options.
    width : int
        Number of neurons ``m``. For ``p = 1`` merged neurons may leave fewer.
    activation : str or Homogeneous
        The activation, or its name.
    random_state : int, numpy.random.Generator or None
        Seed of the initial network.
    max_iter : int, optional
        Bound on the iterations of each descent; by default one that suits the method.
    tol : float
        The network counts as an interpolator once its MSE is at most ``tol * mean(y**2)``.
    verbose : bool
        Show the progress, with an estimate of the time left.
    callback : callable, optional
        Called as ``callback(iterate, net)`` with the lines of the history, as they are written,
        and a copy of the network at that moment, in float64: to see what changes on the way.
    **options
        The options of the method: the keyword-only arguments of its function in ``METHODS``.

    Returns
    -------
    Interpolation
        The network with its flatness, status and history. Ctrl-C ends the search, not the
        program: it returns the best network so far with `Status.INTERRUPTED`.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If the result is not an interpolator, or the solver did not settle.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    Examples
    --------
    >>> import flattest as ft
    >>> X, y, model = ft.make_multi_index(100, 5, ["relu", "-relu"], random_state=0)
    >>> result = ft.interpolate(X, y, width=50, random_state=0)
    >>> result.net.width, model.relative_error(result.net, random_state=1) < 1e-20
    (2, True)
    """
    features = check_matrix(X)
    if features.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"X must be float32 or float64, not {features.dtype}; use X.double().")
    targets = check_vector(y, like=Like.tensor(features), n_samples=len(features))
    check_range(features, "X")
    check_range(targets, "y")
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    solve = METHODS[method]
    settings = check_options(solve, method, options)
    problem = Problem(
        X=features.double(),
        y=targets.double(),
        width=check_positive_int(width, "width"),
        activation=_check_activation(activation),
        rng=check_random_state(random_state),
        max_iter=None if max_iter is None else check_positive_int(max_iter, "max_iter"),
        tol=check_positive_float(tol, "tol"),
        rounding=torch.finfo(features.dtype).eps,
        report=lambda entry, expected: None,
        watch=callback,
    )
    started = time.perf_counter()
    with torch.no_grad(), _shown(problem, method, verbose) as watched:
        outcome = solve(watched, **settings) if _has_signal(watched) else _zero_network(watched)
    seconds = time.perf_counter() - started
    net = TwoLayerNet(
        outcome.weights.to(features), outcome.coefficients.to(features), problem.activation
    )
    flatness = measure(net, features, targets)
    status = outcome.status
    floor = 1e4 * problem.rounding**2  # of the returned network, in the dtype of the data
    missed = flatness.loss > max(tol, floor) * float(problem.y.square().mean())
    if missed and status in (Status.CONVERGED, Status.NOT_FLATTEST):
        status = Status.NOT_INTERPOLATING
    if status is not Status.CONVERGED:
        # scikit-learn takes long to import, and most runs converge.
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(f"{method}: {status.value}", ConvergenceWarning, stacklevel=2)
    return Interpolation(
        net=net,
        flatness=flatness,
        train_error=flatness.loss,
        status=status,
        history=outcome.history,
        method=method,
        seconds=seconds,
        random_state=random_state,
        notes=outcome.notes,
    )


@contextmanager
def _shown(problem: Problem, method: str, verbose: bool) -> Iterator[Problem]:
    """Let the problem report to a progress bar while the context lasts."""
    text = "train error {task.fields[error]:.1e}  trace {task.fields[trace]:.5g}"
    unknown = float("nan")
    with progress_bar(method, text, shown=bool(verbose), error=unknown, trace=unknown) as bar:

        def report(entry: Iterate, expected: int) -> None:
            bar.update(
                total=max(expected, entry.iteration + 1),
                completed=entry.iteration + 1,
                error=entry.train_error,
                trace=entry.orbit_minimum,
            )

        yield dataclasses.replace(problem, report=report)


def _check_activation(activation: Any) -> Homogeneous:
    chosen = get_activation(activation)
    if chosen.degree > _HIGHEST_DEGREE:
        raise ValueError(
            f"activation has degree {chosen.degree:g}, and powers above {_HIGHEST_DEGREE} leave "
            "the range of floating-point numbers; use a lower degree."
        )
    return chosen


def _has_signal(problem: Problem) -> bool:
    return bool((problem.y != 0).any()) and bool((problem.X != 0).any())


def _zero_network(problem: Problem) -> Outcome:
    """Return the flattest network for zero targets, and the only function of zero inputs."""
    fits = not bool((problem.y != 0).any())
    return Outcome(
        problem.X.new_zeros(problem.width, problem.X.shape[1]),
        problem.X.new_zeros(problem.width),
        Status.CONVERGED if fits else Status.NOT_INTERPOLATING,
        [],
    )
