"""How much the logarithms of the targets count in a regressor."""

import numpy as np
import pytest
import torch
from conditioned import conditioned_link
from scipy import stats

from flattest.regression.handover import link_of
from flattest.regression.mixture import share_of_worse
from flattest.regression.outliers import log_densities
from flattest.regression.prediction.target_scale import TargetScale
from flattest.regression.robust_fit import Judged, RobustFit, average, residuals
from flattest.regression.training_data import Rows, TrainingData

RNG = np.random.default_rng(0)
N = 100
NONE = np.zeros(N, dtype=bool)


def _rows(y: np.ndarray) -> Rows:
    return Rows.of(np.arange(float(N))[:, None], y, np.ones(N))


def _fit(y: np.ndarray, *, logarithmic: bool, outliers: np.ndarray = NONE) -> RobustFit:
    rows = _rows(y).without(outliers)
    data = TrainingData.of(rows, bias=True, device=torch.device("cpu"))
    return RobustFit(conditioned_link(rows, logarithmic=logarithmic)[0], data, outliers)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_rows_are_judged_by_density(logarithmic):
    y = RNG.uniform(0.5, 9, N)
    residual, error = RNG.standard_normal(N), RNG.uniform(0.1, 0.4, N)
    fit = _fit(y, logarithmic=logarithmic)
    units = fit.link.units
    middle = (np.log(y) if logarithmic else y) - units.size * residual
    spread = units.size * error
    law = stats.lognorm(spread, scale=np.exp(middle)) if logarithmic else stats.norm(middle, spread)
    mixed = 0.98 * law.pdf(y) + 0.02 / np.ptp(y)
    density = np.logaddexp(*log_densities(y, residual, error, units.log_slope(y)))
    np.testing.assert_allclose(density, np.log(mixed), rtol=1e-9)
    # A variance and the noise.
    expected = np.log(mixed).sum() - 2 * np.log(N) / 2
    assert Judged(fit, density).score == pytest.approx(expected)
    without = fit._replace(outliers=np.arange(N) < 4)
    assert Judged(without, density).score == pytest.approx(expected - 4 * np.log(N) / 2)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_moments_of_targets(logarithmic):
    y = RNG.uniform(0.5, 9, N)
    units = TargetScale.of(y, np.ones(N), logarithmic=logarithmic, centred=True)
    m, v = np.linspace(-1, 1, 5), np.full(5, 0.2)
    mean, variance = units.moments(m, v, 0.1)
    middle = units.centre + units.size * m
    known, unknown = units.size * 0.1**0.5, units.size
    if logarithmic:
        noisy = stats.lognorm(known, scale=np.exp(middle))
        np.testing.assert_allclose(mean, noisy.mean())
        both = stats.lognorm(unknown * 0.3**0.5)
        np.testing.assert_allclose(np.sqrt(variance) / mean, both.std() / both.mean())
    else:
        np.testing.assert_allclose(mean, middle)
        np.testing.assert_allclose(variance, unknown**2 * 0.3)
    far, _ = units.moments(m + 1e3, v, 0.1)
    assert float(far.max()) == (
        pytest.approx(y.max() + np.ptp(y) / 4) if logarithmic else units.centre + units.size * 1001
    )


def _judged(y: np.ndarray, *, logarithmic: bool, outliers: np.ndarray = NONE) -> Judged:
    fit = _fit(y, logarithmic=logarithmic, outliers=outliers)
    log_slope = fit.link.units.log_slope(y)
    return Judged(fit, np.logaddexp(*log_densities(y, *residuals(_rows(y), fit), log_slope)))


@pytest.mark.parametrize("left_out", [0, 3])
def test_what_is_not_clearly_worse_isaverage(left_out):
    wave = 1 + np.sin(np.arange(N) / 4) ** 2
    outliers = np.arange(N) < left_out
    y = wave * np.exp(0.02 * RNG.standard_normal(N))
    raw, log = _judged(y, logarithmic=False), _judged(y, logarithmic=True, outliers=outliers)
    best, worse = sorted([raw, log], key=lambda entry: -entry.score)
    worst = worse._replace(density=worse.density - 1)
    for order in ([raw, log, worst], [worst, log, raw]):
        fit = average(_rows(y), order, np.random.default_rng(0))
        assert [part.units for part in fit.link.parts] == [
            best.fit.link.units,
            worse.fit.link.units,
        ]
        assert fit.outliers is best.fit.outliers
        first, second = (part.share for part in fit.link.parts)
        assert first + second == pytest.approx(1)
        assert 0.05 < second <= 0.5
        assert fit.link.log_share == (first if best is log else second)
    if not left_out:  # the rows are the same, and so is what is compared
        gain = best.density - worse.density
        assert second == pytest.approx(share_of_worse(gain.sum(), gain), rel=1e-6)
    # The processes in other units are as they were in those of the features.
    lengths = [
        fit.data.standardise.inverse_scale
        * (fit.link.basis @ mixture.processes[0].projection).numpy().ravel()
        for fit, mixture in ((fit, fit.link.parts[1].mixture), (worse.fit, worse.fit.link.mixture))
    ]
    np.testing.assert_allclose(*lengths)
    # The moments are those of the mixture.
    link, inputs = link_of(fit.link), best.fit.data.inputs[::7].numpy()
    zero = np.zeros(len(inputs))
    mean, deviation = link(inputs, zero).moments()
    (m0, v0), (m1, v1) = (
        part.units.moments(*part(inputs @ link.basis, zero), part.average.noise)
        for part in link.parts
    )
    np.testing.assert_allclose(mean, first * m0 + second * m1)
    square = first * (v0 + m0**2) + second * (v1 + m1**2)
    np.testing.assert_allclose(deviation**2, square - mean**2)


def test_what_is_clearly_worse_counts_for_nothing():
    y = np.exp(np.arange(N) / 15 + 0.3 * RNG.standard_normal(N))
    raw, log = _judged(y, logarithmic=False), _judged(y, logarithmic=True)
    for order in ([raw, log], [log, raw]):
        fit = average(_rows(y), order, np.random.default_rng(0))
        assert fit is log.fit
        assert fit.link.log_share == 1
    assert average(_rows(y), [raw], np.random.default_rng(0)).link.log_share == 0
