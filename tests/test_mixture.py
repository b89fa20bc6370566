"""Averages of Gaussian processes that look at the same directions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import flattest as ft
from flattest.regression.gaussian_process import Data, Process, evidence
from flattest.regression.mixture import Mixture, kindred

DOUBLE = torch.float64


def _data(n: int = 30, d: int = 4, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.standard_normal((n, d)))
    y = torch.sin(X[:, 0] + X[:, 1]) + 0.1 * torch.from_numpy(rng.standard_normal(n))
    return Data.of(X, y, torch.from_numpy(rng.uniform(0.5, 2, n)))


def _projection(d: int, k: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((d, k))) / d**0.5


def _process(shape: str, projection: Tensor, **rest: object) -> Process:
    return Process(shape, projection, torch.tensor([0.8], dtype=DOUBLE), 0.1, **rest)


def _mixture() -> Mixture:
    B = _projection(4, 2)
    processes = [_process("gaussian", B, score=-3.0), _process("matern52", B / 2, score=-9.0)]
    processes[1] = processes[1]._replace(noise=0.3)
    return Mixture.of(processes, _data(), np.random.default_rng(0))


def test_shares_fall_with_the_score():
    mixture = _mixture()
    assert sum(mixture.shares) == pytest.approx(1)
    assert mixture.shares[0] / mixture.shares[1] == pytest.approx(math.e)
    assert mixture.noise == pytest.approx(0.1 * mixture.shares[0] + 0.3 * mixture.shares[1])


def test_moments_are_those_of_the_mixture():
    mixture, X = _mixture(), _data(n=5, seed=1).X
    rng = np.random.default_rng(0)
    draws = 200_000
    which = rng.random(draws) < mixture.shares[0]
    each = [[part.numpy() for part in posterior(X)] for posterior in mixture.posteriors]
    (m0, v0), (m1, v1) = each
    normal = rng.standard_normal((draws, 5))
    values = np.where(which[:, None], m0 + v0**0.5 * normal, m1 + v1**0.5 * normal)
    mean, variance = mixture(X)
    error = values.std(axis=0) / draws**0.5
    assert np.all(np.abs(values.mean(axis=0) - mean.numpy()) < 5 * error)
    np.testing.assert_allclose(variance.numpy(), values.var(axis=0), rtol=0.02)


def test_left_out_rows_are_forgotten():
    mixture, data = _mixture(), _data()
    residual, variance = mixture.left_out()
    for i in (0, 7):
        rest = torch.arange(len(data.y)) != i
        others = mixture.on(data.some(rest))
        mean, of_function = others(data.X[i : i + 1])
        assert float(data.y[i] - mean) == pytest.approx(float(residual[i]), rel=1e-6)
        noise = sum(
            share * process.noise * float(data.spread[i])
            for share, process in zip(mixture.shares, mixture.processes, strict=True)
        )
        assert float(of_function) + noise == pytest.approx(float(variance[i]), rel=1e-6)


def test_gradients_of_the_mean():
    mixture, X = _mixture(), _data(n=6, seed=2).X
    X = X.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(_mean(mixture, X).sum(), X)
    torch.testing.assert_close(mixture.gradients(X.detach()), slopes, rtol=1e-9, atol=1e-12)


def _mean(mixture: Mixture, X: Tensor) -> Tensor:
    """Predict with kernels written out, which autograd can follow."""
    total = torch.zeros(len(X), dtype=DOUBLE)
    for share, (process, points, weights, _) in zip(
        mixture.shares, mixture.posteriors, strict=True
    ):
        r = torch.cdist(X @ process.projection, points)
        s = 5**0.5 * r
        matern = (1 + s + s.square() / 3) * torch.exp(-s)
        kernel = torch.exp(-r.square() / 2) if process.shape == "gaussian" else matern
        total = total + share * process.variance * kernel @ weights
    return total


def test_many_rows_are_known_by_some_of_them():
    data = _data(n=2001)
    process = _process("gaussian", _projection(4, 1), score=0.0)
    pair = [process, process._replace(shape="matern52")]
    mixture = Mixture.of(pair, data, np.random.default_rng(0))
    z, others = (posterior.points for posterior in mixture.posteriors)
    torch.testing.assert_close(z, others)  # the same rows
    assert mixture.n_points == 1000
    assert (
        Mixture.of(pair, data.some(torch.arange(2000)), np.random.default_rng(0)).n_points == 2000
    )


def test_kindred_look_at_the_same_directions():
    data = _data().blocks(1000)
    n = data.y.numel()
    best = _process("gaussian", _projection(4, 2))
    best = best.fitted(evidence(data, best), n)
    nearby = best.projection + 0.01 * _projection(4, 2, seed=1)
    likely = best.score + 1
    matern = _process("matern52", nearby, score=likely)
    weaker = _process("matern52", _projection(4, 2, seed=3), score=likely - 1)  # of the same kind
    line = _process("matern52", nearby[:, :1], score=likely)
    wide = _process("matern52", _projection(4, 3), score=likely)
    noisy = _process("gaussian", nearby, score=likely, additive=True)._replace(
        variances=torch.full((2,), 1e-4, dtype=DOUBLE), noise=1e-4
    )
    found = kindred(best, [weaker, wide, matern, line, noisy, best], data)
    assert found[0] is best
    assert {(p.shape, p.n_directions) for p in found[1:]} <= {("matern52", 2), ("matern52", 1)}
    second = next(p for p in found if p.shape == "matern52" and p.n_directions == 2)
    Q = torch.linalg.qr(best.projection)[0]
    for process in found:
        torch.testing.assert_close(Q @ (Q.T @ process.projection), process.projection)
        assert process.score > best.score - 15
        assert process.evidence == pytest.approx(evidence(data, process))
    torch.testing.assert_close(second.projection, nearby, rtol=0.1, atol=0.02)
    for lonely in (best._replace(shape="linear"), best._replace(score=-math.inf)):
        assert kindred(lonely, [matern], data) == [lonely]
        assert Mixture.of([lonely], _data(), np.random.default_rng(0)).shares == (1.0,)


def test_predictions_depend_on_the_directions_only():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    y = np.sin(X[:, 0] + X[:, 1]) + 0.2 * rng.standard_normal(60)
    model = ft.MultiIndexRegressor(random_state=0).fit(X, y)
    processes = model.predictor_.link.mixture.processes
    assert len(processes) > 1
    # What the directions do not see changes nothing.
    blind = np.linalg.svd(model.directions_)[2][model.n_directions_ :]
    moved = X + rng.standard_normal((60, len(blind))) @ blind
    assert np.abs(moved - X).max() > 0.5
    inside = np.abs(model.predict(moved) - model.predict(X))
    assert inside.max() < 1e-7  # a kernel with a kink magnifies the rounding
