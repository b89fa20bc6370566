"""Which rows a fit of a regressor leaves out, and which it puts back."""

import numpy as np
import pytest
import torch
from conditioned import conditioned_link, known_directions

from flattest.regression.robust_fit import RobustFit, judge, residuals
from flattest.regression.training_data import Rows, TrainingData

N = 60
LEFT_OUT = np.isin(np.arange(N), [7, 20, 31])


def _left_out(y: np.ndarray) -> tuple[Rows, RobustFit]:
    rows = Rows(np.arange(float(N))[:, None], y, np.ones(N), np.arange(N), np.ones(N))
    kept = rows.without(LEFT_OUT)
    data = TrainingData.of(kept, bias=True, device=torch.device("cpu"))
    return rows, RobustFit(conditioned_link(kept, logarithmic=False)[0], data, LEFT_OUT)


@pytest.mark.parametrize("odd", [[], [20], [7, 31]])
def test_rows_that_are_predicted_are_put_back(odd):
    y = np.sin(np.arange(N) / 9) + 0.1 * np.random.default_rng(0).standard_normal(N)
    y[odd] += 5
    rows, fit = _left_out(y)
    judged, suspected = judge(rows, fit, np.random.default_rng(0))
    np.testing.assert_array_equal(np.flatnonzero(suspected), odd)
    np.testing.assert_array_equal(judged.fit.outliers, suspected)
    link, put_back = judged.fit.link, LEFT_OUT & ~suspected
    assert link.mixture.n_points == N - len(odd)
    assert (link.units.least, link.units.most) == (y[~suspected].min(), y[~suspected].max())
    # Leaving a row out of the posterior that has learnt from it is not to have learnt from it.
    found = np.stack(residuals(rows, judged.fit._replace(link=known_directions(link))))
    for row in np.flatnonzero(put_back):
        without = suspected | (np.arange(N) == row)
        others = rows.without(without)
        data = fit.data.with_rows(others)
        link = fit.link.conditioned_on(data, others.y, np.random.default_rng(0))
        link = known_directions(link)
        expected = np.stack(residuals(rows, RobustFit(link, data, without)))
        np.testing.assert_allclose(found[:, row], expected[:, row], rtol=1e-6)


def test_rows_far_off_stay_left_out():
    y = np.sin(np.arange(N) / 9) + 0.1 * np.random.default_rng(0).standard_normal(N)
    y[LEFT_OUT] -= 5
    rows, fit = _left_out(y)
    judged, suspected = judge(rows, fit, np.random.default_rng(0))
    assert judged.fit is fit
    np.testing.assert_array_equal(suspected, LEFT_OUT)
