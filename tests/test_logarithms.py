"""When a regressor fits the logarithms of its targets."""

import numpy as np
import pytest
import torch
from conditioned import conditioned_link
from scipy import stats

from flattest.regression.outliers import RobustFit, _judge, _Judged, _preferred
from flattest.regression.training_data import Rows, TrainingData

RNG = np.random.default_rng(0)
N = 100
NONE = np.zeros(N, dtype=bool)


def _fit(y: np.ndarray, *, logarithmic: bool, outliers: np.ndarray = NONE) -> RobustFit:
    rows = Rows.of(np.arange(float(N))[:, None], y, np.ones(N))
    data = TrainingData.of(rows, bias=True, device=torch.device("cpu"))
    return RobustFit(conditioned_link(rows, logarithmic=logarithmic)[0], data, outliers)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_rows_are_judged_by_density_and_mean(logarithmic):
    y = RNG.uniform(0.5, 9, N)
    residual, error = RNG.standard_normal(N), RNG.uniform(0.1, 0.4, N)
    fit = _fit(y, logarithmic=logarithmic)
    found = _judge(y, fit, residual, error)
    units = fit.link.units
    middle = (np.log(y) if logarithmic else y) - units.size * residual
    spread = units.size * error
    law = stats.lognorm(spread, scale=np.exp(middle)) if logarithmic else stats.norm(middle, spread)
    mixed = 0.98 * law.pdf(y) + 0.02 / np.ptp(y)
    np.testing.assert_allclose(found.density, np.log(mixed), rtol=1e-9)
    mean = np.minimum(law.mean(), y.max() + np.ptp(y) / 4) if logarithmic else law.mean()
    np.testing.assert_allclose(found.square, np.square(mean - y), rtol=1e-9)


@pytest.mark.parametrize(
    ("standard_errors", "nearer", "taken"),
    [(4.1, False, True), (3.9, False, False), (0.1, True, True), (-0.1, True, False)],
)
def test_logarithms_are_taken_where_they_are_clearly_better(standard_errors, nearer, taken):
    y = RNG.uniform(0.5, 9, N)
    gain = RNG.standard_normal(N)
    gain += standard_errors * gain.std() / N**0.5 - gain.mean()
    density, square = RNG.standard_normal(N), RNG.uniform(1, 2, N)
    others = square + (-0.1 if nearer else 0.1)
    outliers = np.arange(N) == 7
    others[outliers] = 1e6 if nearer else -1e6  # does not count
    judged = [
        _Judged(_fit(y, logarithmic=False), density, square),
        _Judged(_fit(y, logarithmic=False), density - 1, square * 0),  # worse than the first
        _Judged(_fit(y, logarithmic=True, outliers=outliers), density + gain, others),
    ]
    for order in (judged, judged[::-1]):
        assert _preferred(order) is (judged[2] if taken else judged[0]).fit
