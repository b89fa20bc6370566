"""Memorizers: exact interpolators that look the targets up and ignore their structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch

from flattest.interpolators.constructions import Construction, fan, line, slabs, spikes
from flattest.interpolators.flattest import flattest
from flattest.interpolators.output_layer import least_norm
from flattest.interpolators.result import Iterate, Outcome, Problem, Status
from flattest.interpolators.run import construct, finish, hand_back
from flattest.two_layer.activations import Homogeneous
from flattest.two_layer.networks import TwoLayerNet

_CONSTRUCTIONS: dict[str, Callable[[Problem], Construction | None]] = {
    "spikes": spikes,
    "fan": fan,
    "slabs": slabs,
    "line": line,
}
_WHERE = {
    "spikes": "every sample can be cut off from the others by a halfspace through 0",
    "fan": "there are two features or more",
    "slabs": "X has rank 2 or more and no sample lies on a hyperplane through others",
    "line": "X has a constant column and the activation is not even",
}


def memorizer(
    problem: Problem,
    *,
    construction: Literal["auto", "spikes", "fan", "slabs", "line", "subspace"] = "auto",
    subspace_dim: int | None = None,
) -> Outcome:
    """Build an interpolator that looks the targets up; these are our constructions.

    It is not expected to generalise on multi-index data.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.
    construction : {"auto", "spikes", "fan", "slabs", "line", "subspace"}
        ``"spikes"``: one neuron per sample with a target, which fires on that sample alone, where
        the data allow it; the network attains the lower bound on the trace (Wen, Li and Ma use
        such networks for Boolean inputs with a bias). For one-sided activations of any degree.

        ``"fan"``: linear interpolation of ``y / r`` in the angle of a random plane, cone by cone;
        ``n + 2`` neurons. ``"slabs"``: thin slabs around hyperplanes through up to ``d - 1``
        samples each, three neurons per slab, after Baum (1988). ``"line"``: linear interpolation
        along a random direction, with a bias (a constant column of ``X``); ``n`` neurons. For
        ``p = 1``.

        ``"subspace"``: ``"flattest"`` among the networks that see a random subspace only.

        ``"auto"``: of the first four the flattest that exists and fits into the width.
    subspace_dim : int, optional
        Dimension of that subspace; by default half the number of features.

    Returns
    -------
    Outcome
        The network; the notes name the construction.

    Raises
    ------
    ValueError
        If the width is too small, or the construction does not exist for the activation or data.

    References
    ----------
    E. B. Baum, "On the Capabilities of Multilayer Perceptrons", Journal of Complexity 4, 1988.

    K. Wen, Z. Li, T. Ma, "Sharpness Minimization Algorithms Do Not Only Minimize Sharpness To
    Achieve Better Generalization", NeurIPS 2023.
    """
    if construction == "subspace":
        return _subspace(problem, subspace_dim)
    if subspace_dim is not None:
        raise ValueError("subspace_dim is for construction 'subspace' only; leave it out.")
    names = list(_CONSTRUCTIONS) if construction == "auto" else [construction]
    possible = [name for name in names if _supports(name, problem.activation)]
    if not possible:
        raise ValueError(
            f"activation {problem.activation!r} has no construction {construction!r}: 'spikes' "
            "needs a slope that is 0, the others degree 1 and slopes that do not cancel."
        )
    length = float(problem.X.square().sum(dim=1).mean().sqrt())
    size = float(problem.y.square().mean().sqrt())
    unit = dataclasses.replace(problem, X=problem.X / length, y=problem.y / size)
    built: dict[str, Construction] = {}
    for name in possible:
        alone = name == construction == "spikes"
        found = spikes(unit, partial=True) if alone else _CONSTRUCTIONS[name](unit)
        if found is not None:
            built[name] = found.in_units(length, size)
    if not built:
        what = (
            f"{construction!r}, which exists where {_WHERE[construction]}"
            if (construction != "auto")
            else "that exists for these data"
        )
        raise ValueError(f"X and y have no construction {what}.")
    fitting = {k: v for k, v in built.items() if len(v.coefficients) <= problem.width}
    if not fitting:
        least = min(len(each.coefficients) for each in built.values())
        raise ValueError(
            f"width must be at least {least} for construction {construction!r} on these data, "
            f"not {problem.width}."
        )
    outcomes = [_finish(problem, name, each) for name, each in fitting.items()]
    exact = [each for each in outcomes if each.status is Status.CONVERGED]
    if exact:
        return min(exact, key=lambda each: each.history[-1].orbit_minimum)
    return min(outcomes, key=lambda each: each.history[-1].train_error)


def _supports(name: str, act: Homogeneous) -> bool:
    if name == "spikes":
        return act.positive * act.negative == 0
    even = name == "line" and act.parity == 1
    return act.degree == 1 and act.positive + act.negative != 0 and not even


def _finish(problem: Problem, name: str, built: Construction) -> Outcome:
    """Let the output layer take up what rounding has left, where that helps."""
    W, a = built.weights, built.coefficients
    notes = {"construction": name} | ({"not_cut_off": built.missed} if built.missed else {})
    outcome = construct(problem, W, a, notes)
    if outcome.status is Status.CONVERGED or built.missed:
        return outcome
    features = problem.activation(problem.X @ W.T)
    refined = construct(problem, W, a + least_norm(features, problem.y - features @ a), notes)
    return min(outcome, refined, key=lambda each: each.history[-1].train_error)


def _subspace(problem: Problem, dimension: int | None) -> Outcome:
    d = problem.X.shape[1]
    k = max(1, d // 2) if dimension is None else dimension
    if k > d:
        raise ValueError(f"subspace_dim must be at most the {d} features of X, not {k}.")
    basis = torch.linalg.qr(problem.normal(d, k))[0]
    inside = dataclasses.replace(problem, X=problem.X @ basis)
    watch = problem.watch
    if watch is not None:

        def lifted(entry: Iterate, net: TwoLayerNet) -> None:
            watch(entry, TwoLayerNet(net.weights @ basis.T, net.coefficients, net.activation))

        inside = dataclasses.replace(inside, watch=lifted)
    found = flattest(inside)
    finished = finish(problem, found.weights @ basis.T, found.coefficients)
    notes = {"construction": "subspace", "subspace_dim": k}
    return hand_back(finished, found.status, found.history, notes)
