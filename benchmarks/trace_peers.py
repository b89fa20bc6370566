"""Ways to a trace, each as its documentation shows: flattest, torch.func, and five packages.

A way is a generator. Each value that it yields is an estimate of its own of the trace, or the exact
one, and what is done before the first is part of its time.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from trace_problems import Problem

import flattest as ft


class Way(NamedTuple):
    """A way to a trace: of which matrix, whether exactly, and how."""

    matrix: str
    exact: bool
    values: Callable[[Problem], Iterator[float]]


def flattest_exact(problem: Problem) -> Iterator[float]:
    while True:
        model, X, y, loss = problem
        yield ft.measure(model, X, y, loss=loss, mode="exact", residual="none").gauss_newton


def flattest_sampled(problem: Problem) -> Iterator[float]:
    model, X, y, loss = problem
    seed = 0
    while True:
        found = ft.measure(
            model, X, y, loss=loss, mode="sampled", residual="none", rtol=10.0, random_state=seed
        )
        yield found.gauss_newton
        seed += 1


def flattest_hessian(problem: Problem) -> Iterator[float]:
    """Measure the Hessian trace: exactly where that is cheap, else to the default tolerance."""
    model, X, y, loss = problem
    seed = 0
    while True:
        yield ft.measure(model, X, y, loss=loss, random_state=seed).trace
        seed += 1


def pyhessian(problem: Problem) -> Iterator[float]:
    from pyhessian import hessian

    with sdpa_kernel(SDPBackend.MATH):
        computer = hessian(problem.model, problem.loss, data=(problem.X, problem.y), cuda=False)
        while True:
            yield from computer.trace(maxIter=1, tol=0)


def _curvlinops(problem: Problem, kind: str) -> Iterator[float]:
    import curvlinops

    with sdpa_kernel(SDPBackend.MATH):
        operator = getattr(curvlinops, kind)(
            problem.model,
            problem.loss,
            [p for p in problem.model.parameters() if p.requires_grad],
            [(problem.X, problem.y)],
            check_deterministic=False,
        )
        while True:
            yield float(curvlinops.hutchinson_trace(operator, num_matvecs=1))


def curvlinops_hessian(problem: Problem) -> Iterator[float]:
    yield from _curvlinops(problem, "HessianLinearOperator")


def curvlinops_ggn(problem: Problem) -> Iterator[float]:
    yield from _curvlinops(problem, "GGNLinearOperator")


def _eigenthings(problem: Problem, gauss_newton: bool) -> Iterator[float]:
    import hessian_eigenthings as he

    data = [(problem.X, problem.y)]
    with sdpa_kernel(SDPBackend.MATH):
        if gauss_newton:
            operator = he.GGNOperator(
                problem.model,
                data,
                he.supervised_forward,
                he.supervised_loss_of_output(problem.loss),
            )
        else:
            operator = he.HessianOperator(problem.model, data, he.supervised_loss(problem.loss))
        seed = 0
        while True:
            yield float(he.hutchinson(operator, num_samples=1, seed=seed).estimate)
            seed += 1


def eigenthings_hessian(problem: Problem) -> Iterator[float]:
    yield from _eigenthings(problem, False)


def eigenthings_ggn(problem: Problem) -> Iterator[float]:
    yield from _eigenthings(problem, True)


def backpack(problem: Problem) -> Iterator[float]:
    from backpack import backpack as extension, extend
    from backpack.extensions import DiagGGNExact

    model, loss = extend(problem.model), extend(problem.loss)
    while True:
        value = loss(model(problem.X), problem.y)
        with extension(DiagGGNExact()):
            value.backward()
        yield sum(float(p.diag_ggn_exact.sum()) for p in model.parameters())
        model.zero_grad()


def laplace(problem: Problem) -> Iterator[float]:
    """Its diagonal is that of the loss summed over samples; of half the squared error."""
    from laplace.curvature import BackPackGGN

    kind = "regression" if isinstance(problem.loss, nn.MSELoss) else "classification"
    backend = BackPackGGN(problem.model, kind)
    factor = 2.0 if kind == "regression" else 1.0
    while True:
        _, diagonal = backend.diag(problem.X, problem.y)
        yield factor * float(diagonal.sum()) / len(problem.X)
        problem.model.zero_grad()


def torch_func(problem: Problem) -> Iterator[float]:
    """Per-sample Jacobians by vmap, and the Hessian of the loss in the outputs by the same."""
    from torch.func import functional_call, hessian, jacrev, vmap

    model, X, y, loss = problem
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        n_outputs = model(X[:1]).numel()
    gigabytes = 4e-9 * n_outputs * sum(p.numel() for p in parameters.values())
    if gigabytes > 4:
        raise MemoryError(f"not run: the Jacobian of one sample takes {gigabytes:.0f} GB")

    def one(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        def outputs(values: dict[str, torch.Tensor]) -> torch.Tensor:
            return functional_call(model, values, (x[None],))[0]

        z = outputs(parameters)
        curvature = hessian(lambda v: loss(v[None], target[None]))(z)
        k = z.numel()
        total = z.new_zeros(())
        for jacobian in jacrev(outputs)(parameters).values():
            flat = jacobian.reshape(k, -1)
            total = total + ((curvature.reshape(k, k) @ flat) * flat).sum()
        return total

    with sdpa_kernel(SDPBackend.MATH):
        while True:
            yield float(vmap(one, chunk_size=4)(X, y).mean())


def preload() -> None:
    """Import all peers that are installed."""
    for name in ("backpack", "curvlinops", "hessian_eigenthings", "laplace.curvature", "pyhessian"):
        with contextlib.suppress(Exception):  # one that cannot be imported fails on each problem
            importlib.import_module(name)


WAYS = {
    "flattest, exact": Way("gauss_newton", True, flattest_exact),
    "flattest, one draw": Way("gauss_newton", False, flattest_sampled),
    "flattest, Hessian": Way("hessian", False, flattest_hessian),
    "PyHessian": Way("hessian", False, pyhessian),
    "curvlinops, Hessian": Way("hessian", False, curvlinops_hessian),
    "curvlinops, Gauss-Newton": Way("gauss_newton", False, curvlinops_ggn),
    "hessian-eigenthings, Hessian": Way("hessian", False, eigenthings_hessian),
    "hessian-eigenthings, Gauss-Newton": Way("gauss_newton", False, eigenthings_ggn),
    "BackPACK, exact": Way("gauss_newton", True, backpack),
    "laplace-torch, exact": Way("gauss_newton", True, laplace),
    "torch.func, exact": Way("gauss_newton", True, torch_func),
}
