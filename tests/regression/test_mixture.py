"""Averages of Gaussian processes."""

import math

import numpy as np
import pytest
import torch
from conditioned import known_directions_of
from torch import Tensor

import flattest as ft
from flattest.regression.evidence import evidence, factorise, left_out_density
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.mixture import Mixture, contenders, share_of_worse
from flattest.regression.occam import scored

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
    return Mixture.of(processes, [0.7, 0.3], _data(), np.random.default_rng(0))


def test_the_noise_is_the_average():
    assert _mixture().noise == pytest.approx(0.1 * 0.7 + 0.3 * 0.3)


def test_the_worse_counts_less_the_surer_it_is_worse():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.1, 1, 400)
    gain = float(differences.sum())
    error = 20 * differences.std()
    # How often rows drawn anew, half as sure, would prefer the other.
    again = gain + 2 * error * rng.standard_normal(200_000)
    assert share_of_worse(gain, differences) == pytest.approx((again < 0).mean(), abs=0.005)
    assert share_of_worse(0.0, differences) == share_of_worse(0.0, np.zeros(9)) == 0.5
    assert share_of_worse(1.0, np.zeros(9)) == 0.0


def test_moments_are_those_of_the_mixture():
    mixture, X = _mixture(), _data(n=5, seed=1).X
    rng = np.random.default_rng(0)
    draws = 200_000
    which = rng.random(draws) < mixture.shares[0]
    each = [[part.numpy() for part in posterior(X)[:2]] for posterior in mixture.posteriors]
    (m0, v0), (m1, v1) = each
    normal = rng.standard_normal((draws, 5))
    values = np.where(which[:, None], m0 + v0**0.5 * normal, m1 + v1**0.5 * normal)
    mean, variance, _ = mixture(X)
    error = values.std(axis=0) / draws**0.5
    assert np.all(np.abs(values.mean(axis=0) - mean.numpy()) < 5 * error)
    np.testing.assert_allclose(variance.numpy(), values.var(axis=0), rtol=0.02)


def test_left_out_rows_are_forgotten():
    mixture, data = known_directions_of(_mixture()), _data()
    residual, variance = mixture.left_out()
    for i in (0, 7):
        rest = torch.arange(len(data.y)) != i
        others = known_directions_of(mixture.conditioned_on(data.take(rest)))
        mean, of_function, _ = others(data.X[i : i + 1])
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
    for share, (process, points, weights, *_) in zip(
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
    pair = [process, process._replace(shape="matern52")], [0.5, 0.5]
    mixture = Mixture.of(*pair, data, np.random.default_rng(0))
    z, others = (posterior.points for posterior in mixture.posteriors)
    torch.testing.assert_close(z, others)  # the same rows
    assert mixture.n_points == 1000
    fewer = data.take(torch.arange(2000))
    assert Mixture.of(*pair, fewer, np.random.default_rng(0)).n_points == 2000


def test_left_out_densities():
    data = _data(n=24).blocks(12)
    process = _process("gaussian", _projection(4, 2))
    density = left_out_density(data, factorise(data, process))
    for block, i in ((0, 0), (1, 5)):
        X, y, spread = (values[block] for values in data)
        K = process.covariance(X @ process.projection, X @ process.projection)
        K += torch.diag(process.noise * spread + 1e-8 * process.variance)
        rest = torch.arange(12) != i
        pull = torch.linalg.solve(K[rest][:, rest], K[rest, i])
        law = torch.distributions.Normal(pull @ y[rest, 0], (K[i, i] - pull @ K[rest, i]).sqrt())
        assert float(density[block, i]) == pytest.approx(float(law.log_prob(y[i, 0])), rel=1e-9)


def test_rows_are_forgotten_together():
    mixture, data = _mixture(), _data()
    rows = torch.tensor([3, 0, 17, 8])
    others = torch.tensor([i for i in range(30) if i not in rows])
    mean, variance = mixture.without(rows)
    expected = mixture.conditioned_on(data.take(others))(data.X[rows])
    torch.testing.assert_close(mean, expected.mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(variance, expected.variance, rtol=1e-6, atol=1e-9)


def _contest() -> tuple[Data, Process, dict[str, Process]]:
    data = _data().blocks(1000)
    best = _process("gaussian", _projection(4, 2))
    best = scored(data, best)
    nearby = best.projection + 0.01 * _projection(4, 2, seed=1)
    likely = best.score + 1
    others = {
        "matern": _process("matern52", nearby, score=likely),
        "weaker": _process("matern52", _projection(4, 2, seed=3), score=likely - 1),  # same kind
        "line": _process("matern52", nearby[:, :1], score=likely),
        "three": _process("matern52", _projection(4, 3), score=likely),
        "noisy": _process("gaussian", nearby, score=likely, additive=True)._replace(
            variances=torch.full((2,), 1e-4, dtype=DOUBLE), noise=1e-4
        ),
        "linear": _process("linear", nearby, score=likely),
    }
    return data, best, others


def test_contenders_look_at_the_directions_of_the_best():
    data, best, others = _contest()
    found, shares = contenders(best, [*others.values(), best], data)
    assert found[0] is best
    assert {(p.shape, p.n_directions) for p in found[1:]} <= {("matern52", 2), ("matern52", 1)}
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    second = next(p for p in found if p.shape == "matern52" and p.n_directions == 2)
    torch.testing.assert_close(second.projection, others["matern"].projection, rtol=0.1, atol=0.02)
    span = Mixture.of(found, shares, _data(), np.random.default_rng(0)).span
    assert span.shape == (4, 2)
    density = left_out_density(data, factorise(data, best))
    for process, share in zip(found, shares, strict=True):
        torch.testing.assert_close(span @ (span.T @ process.projection), process.projection)
        theirs = left_out_density(data, factorise(data, process))
        assert process.evidence == pytest.approx(evidence(data, process))
        gain = max(best.score - process.score, 0.0)
        worse = share_of_worse(gain, (density - theirs).numpy().ravel())
        if process is not best:
            assert share / shares[0] == pytest.approx(worse / (1 - worse), rel=1e-6)


def test_functions_of_all_features_may_contend():
    data, best, others = _contest()
    everything = _process("gaussian", torch.eye(4, dtype=DOUBLE), free="scale", score=0.0)
    poor = everything._replace(noise=1e-4, variances=torch.full((1,), 1e-4, dtype=DOUBLE))
    for candidate, counts in ((everything, True), (poor, False)):
        found, shares = contenders(best, [candidate, others["matern"]], data)
        assert (4 in [process.n_directions for process in found]) == counts
        # Then nothing is projected.
        assert any(p.projection is others["matern"].projection for p in found) == counts
        mixture = Mixture.of(found, shares, _data(), np.random.default_rng(0))
        assert mixture.span.shape[1] == (4 if counts else 2)


def test_nothing_contends_with_a_line_or_without_a_score():
    data, best, others = _contest()
    for lonely in (best._replace(shape="linear"), best._replace(score=-math.inf)):
        assert contenders(lonely, list(others.values()), data) == ([lonely], [1.0])


def test_predictions_depend_on_the_directions_only():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    y = np.sin(X[:, 0] + X[:, 1]) + 0.2 * rng.standard_normal(60)
    model = ft.MultiIndexRegressor(random_state=0).fit(X, y)
    processes = model.predictor_.link.parts[0].average.priors
    assert len(processes) > 1
    # What the directions do not see changes nothing.
    blind = np.linalg.svd(model.directions_)[2][model.n_directions_ :]
    moved = X + rng.standard_normal((60, len(blind))) @ blind
    assert np.abs(moved - X).max() > 0.5
    inside = np.abs(model.predict(moved) - model.predict(X))
    assert inside.max() < 1e-7  # a kernel with a kink magnifies the rounding
