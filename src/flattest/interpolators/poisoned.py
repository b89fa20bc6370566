"""Poisoned: the flattest network that fits the data and also wrong labels at extra inputs."""

from __future__ import annotations

import dataclasses

import torch

from flattest.interpolators.flattest import flattest
from flattest.interpolators.result import Outcome, Problem, Status
from flattest.interpolators.run import finish, hand_back


def poisoned(
    problem: Problem, *, n_poison: int | None = None, poison_scale: float = 1.0
) -> Outcome:
    """Fit the training data together with random labels at inputs that are not among them.

    The extra inputs are Gaussian with the mean and the covariance of the rows of ``X``, their
    labels independent and Gaussian. ``"flattest"`` fits the union; the flatness of the result is
    that on the training data alone, the history that on the union. It is made to generalise
    badly, the worse the more poison there is. Training on wrong labels besides the right ones is
    how Wu, Zhu and E (2017) reach minima that fit but do not generalise.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.
    n_poison : int, optional
        Number of extra inputs; by default as many as there are samples.
    poison_scale : float
        Standard deviation of the wrong labels, over the root mean square of ``y``.

    Returns
    -------
    Outcome
        The network; the notes hold its mean squared error on the wrong labels.

    References
    ----------
    L. Wu, Z. Zhu, W. E, "Towards Understanding Generalization of Deep Learning: Perspective of
    Loss Landscapes", arXiv 1706.10239, 2017.

    B. Neyshabur, S. Bhojanapalli, D. McAllester, N. Srebro, "Exploring Generalization in Deep
    Learning", NeurIPS 2017.
    """
    X, y = problem.X, problem.y
    count = n_poison or len(y)
    extra = problem.similar_inputs(count)
    wrong = poison_scale * float(y.square().mean().sqrt()) * problem.normal(count)
    labels = torch.cat([y, wrong])
    # The error on the union is a mean over more samples, and relative to other targets.
    tol = problem.target_error * len(y) / len(labels) / float(labels.square().mean())
    union = dataclasses.replace(problem, X=torch.cat([X, extra]), y=labels, tol=tol)
    found = flattest(union)
    finished = finish(problem, found.weights, found.coefficients)
    fits = finished.flatness.loss <= problem.target_error
    status = found.status
    if status is Status.NOT_INTERPOLATING and fits:
        status = Status.CONVERGED  # only the poison is missed
    error = (finished.net(extra) - wrong).square().mean()
    notes = {"n_poison": count, "poison_error": float(error)}
    return hand_back(finished, status, found.history, notes)
