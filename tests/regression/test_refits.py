"""Candidates judged on rows that they have not seen."""

import numpy as np
import pytest
import torch

from flattest.regression.gaussian_process import Data, Process
from flattest.regression.occam import scored
from flattest.regression.posterior import Posterior
from flattest.regression.process_fit import fit_process
from flattest.regression.refits import judged_on_held_out_rows
from flattest.regression.tuning import (
    FINE,
    REFIT_FOLDS,
    REFIT_ROWS,
    REFIT_STEP,
    ROUGH,
    START_NOISE,
)


def _data(n: int, d: int, noise: float) -> Data:
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.standard_normal((n, d)))
    y = torch.sin(X[:, 0]) + noise * torch.from_numpy(rng.standard_normal(n))
    y = (y - y.mean()) / y.std()
    return Data.of(X, y, torch.ones(n, dtype=torch.float64)).blocks(n)


def _candidates(data: Data) -> list[Process]:
    d = data.X.shape[-1]
    one, everything = torch.eye(d, dtype=torch.float64)[:, :1], torch.eye(d, dtype=torch.float64)
    variance = torch.ones(1, dtype=torch.float64)
    starts = [
        Process("gaussian", one, variance, 0.3),
        Process("gaussian", everything / d**0.5, variance, 0.3, free="scale"),
        Process("linear", everything / d**0.5, variance, 0.3, free="scale"),
        Process("matern52", everything / d**0.5, variance, 0.3, free="scale"),
    ]
    return [fit_process(data, start, ROUGH) for start in starts]


def test_a_candidate_is_judged_by_refits_without_a_fold() -> None:
    data = _data(40, 8, 0.5)
    process = _candidates(data)[0]
    (found,) = judged_on_held_out_rows(data, [process], np.random.default_rng(3))
    rng = np.random.default_rng(3)
    fold = torch.arange(REFIT_FOLDS).repeat(8)[torch.from_numpy(rng.permutation(40))]
    densities, squares = [], []
    flat = Data(data.X[0], data.y[0], data.spread[0])
    B, noise = process.projection, max(process.noise, START_NOISE)
    for number in range(REFIT_FOLDS):
        train, test = flat.take(fold != number), flat.take(fold == number)
        step = REFIT_STEP * B.square().mean().sqrt() * torch.from_numpy(rng.standard_normal((8, 1)))
        start = process._replace(projection=B + step, noise=noise)
        again = fit_process(train.blocks(40), start, FINE)
        mean, variance, doubt = Posterior.of(again, train)(test.X)
        law = torch.distributions.Normal(mean, (variance + doubt + again.noise).sqrt())
        densities.append(law.log_prob(test.y[:, 0]))
        squares.append(((test.y[:, 0] - mean) / law.scale).square())
    density, square = float(torch.cat(densities).sum()), float(torch.cat(squares).mean())
    assert found.score == pytest.approx((process.score + density) / 2)
    assert found.inflation == pytest.approx(max(square, 1.0))
    # A process keeps its correction when it is scored anew.
    assert scored(data, found).score == pytest.approx(found.score)


def test_a_class_is_corrected_by_its_best() -> None:
    data = _data(40, 8, 0.5)
    candidates = _candidates(data)
    found = judged_on_held_out_rows(data, candidates, np.random.default_rng(3))
    for before, after in zip(candidates, found, strict=True):
        assert after.score == pytest.approx(before.score + after.correction)
        assert after.projection is before.projection
    # The smooth functions of all features are one class.
    assert found[1].correction == found[3].correction != found[2].correction
    assert found[1].inflation == found[3].inflation >= 1
    assert found[0].correction != found[1].correction


def test_variances_are_inflated() -> None:
    data = _data(30, 3, 0.5)
    flat = Data(data.X[0], data.y[0], data.spread[0])
    process = _candidates(data)[0]
    one, two = (Posterior.of(process._replace(inflation=c), flat) for c in (1.0, 2.5))
    fresh = torch.zeros(2, 3, dtype=torch.float64)
    for part in (1, 2):
        torch.testing.assert_close(two(fresh)[part], 2.5 * one(fresh)[part])
    torch.testing.assert_close(two(fresh)[0], one(fresh)[0])
    torch.testing.assert_close(two.left_out()[1], 2.5 * one.left_out()[1])


def test_where_rows_are_plenty_nothing_is_fitted_again() -> None:
    data = _data(REFIT_ROWS + 1, 3, 0.5)
    candidates = _candidates(data)[:1]
    found = judged_on_held_out_rows(data, candidates, np.random.default_rng(0))
    assert found is candidates
