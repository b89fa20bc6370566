"""The law of new targets, against SciPy's laws and against draws."""

import numpy as np
import pytest
from scipy import optimize, stats

from flattest.regression.prediction.predictive import Predictive
from flattest.regression.prediction.target_scale import TargetScale

Y = np.exp(np.random.default_rng(0).standard_normal(50))
UNITS = tuple(
    TargetScale.of(Y, np.ones(50), logarithmic=logarithmic, centred=True)
    for logarithmic in (False, True)
)
MEANS = np.array([[-0.4, 0.0, 0.3, 1.0], [0.2, -1.0, 0.1, 0.4]])
VARIANCES = np.array([[0.1, 0.2, 0.3, 0.9], [0.3, 0.1, 0.01, 0.2]])
NOISES = np.array([0.05, 0.3])


def _law(*parts: int) -> Predictive:
    shares = {1: (1.0,), 2: (0.7, 0.3)}[len(parts)]
    units = tuple(UNITS[part] for part in parts)
    chosen = list(parts)
    return Predictive(units, shares, MEANS[chosen], VARIANCES[chosen], NOISES[chosen])


def _scipy(law: Predictive, row: int) -> list[tuple[float, object]]:
    """Return shares and frozen laws of a row's target."""
    found = []
    for part, (units, share) in enumerate(zip(law.units, law.shares, strict=True)):
        mean = units.centre + units.size * float(law.means[part, row])
        spread = units.size * float(law.variances[part, row] + law.noises[part]) ** 0.5
        log = units.logarithmic
        of_part = stats.lognorm(spread, scale=np.exp(mean)) if log else stats.norm(mean, spread)
        found.append((share, of_part))
    return found


@pytest.mark.parametrize("parts", [(0,), (1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("probability", [0.001, 0.05, 0.5, 0.95])
def test_quantiles(parts: tuple[int, ...], probability: float) -> None:
    law = _law(*parts)
    for row, found in enumerate(law.quantile(probability)):
        each = _scipy(law, row)

        def below(y: float, each: list = each) -> float:
            return sum(share * of_part.cdf(y) for share, of_part in each) - probability

        edges = [of_part.ppf(probability) for _, of_part in each]
        expected = optimize.brentq(below, min(edges) - 1e-9, max(edges) + 1e-9, xtol=1e-12)
        assert float(found) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("parts", [(0,), (1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("y", [-2.0, 0.0, 1e-3, 0.7, 4.0])
def test_densities(parts: tuple[int, ...], y: float) -> None:
    law = _law(*parts)
    for row, found in enumerate(law.log_density(np.full(4, y))):
        with np.errstate(divide="ignore"):
            expected = np.log(sum(share * one.pdf(y) for share, one in _scipy(law, row)))
        assert found == pytest.approx(expected, rel=1e-10)


def test_intervals_of_logarithms_are_positive_and_longer_upwards() -> None:
    law = _law(1)
    low, middle, high = (law.quantile(p) for p in (0.05, 0.5, 0.95))
    assert (low > 0).all()
    assert (high - middle > middle - low).all()


@pytest.mark.parametrize("parts", [(0,), (1,), (0, 1)])
def test_draws_follow_the_law(parts: tuple[int, ...]) -> None:
    law = _law(*parts)
    draws = law.sample(4000, np.random.default_rng(1))
    assert draws.shape == (4, 4000)
    for row in range(4):
        each = _scipy(law, row)
        uniform = sum(share * of_part.cdf(draws[row]) for share, of_part in each)
        assert stats.kstest(uniform, "uniform").pvalue > 1e-4
    again = law.sample(4000, np.random.default_rng(1))
    np.testing.assert_array_equal(draws, again)


def test_moments_of_linear_units_are_those_of_the_draws() -> None:
    law = _law(0)
    mean, deviation = law.moments()
    draws = law.sample(100_000, np.random.default_rng(1))
    np.testing.assert_allclose(mean, draws.mean(axis=1), atol=0.02)
    np.testing.assert_allclose(deviation, draws.std(axis=1), rtol=0.02)


def test_means_of_logarithms_are_cut_off_where_they_are_not_believed() -> None:
    law = _law(1)._replace(means=MEANS[1:] + 100)
    most = Y.max() + (Y.max() - Y.min()) / 4
    np.testing.assert_allclose(law.moments()[0], most)
    assert (law.quantile(0.5) < most).all()
