"""The Gaussian processes of the regressor against dense, independent computations."""

import numpy as np
import pytest
import torch

from flattest.regression.evidence import evidence, evidence_and_slopes, gradients, trend_slope
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.kernels import SHAPES
from flattest.regression.posterior import Posterior
from flattest.regression.process_fit import fit_process
from flattest.regression.tuning import JITTER, Effort

KERNELS = {
    "gaussian": lambda r2: torch.exp(-r2 / 2),
    "matern12": lambda r2: torch.exp(-torch.where(r2 > 0, r2, 1e-300).sqrt()),
    "matern52": lambda r2: (
        (1 + (5 * r2 + 1e-300).sqrt() + 5 * r2 / 3) * torch.exp(-((5 * r2 + 1e-300).sqrt()))
    ),
}
CASES = [
    pytest.param(shape, additive, trend, id=f"{shape}{'-additive' * additive}{'-trend' * trend}")
    for shape in SHAPES
    for additive in (False, True)
    for trend in (False, True)
]


def _data(n: int = 12, d: int = 4, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    X, y = (torch.from_numpy(rng.standard_normal(size)) for size in ((n, d), n))
    return Data.of(X, y, torch.from_numpy(rng.uniform(0.5, 3, n)))


def _process(shape: str, additive: bool, trend: bool = False, d: int = 4, k: int = 2) -> Process:
    rng = np.random.default_rng(1)
    projection = torch.from_numpy(rng.standard_normal((d, k)))
    variances = [0.7, 1.3][: k if additive else 1] + [0.4] * trend
    found = torch.tensor(variances, dtype=torch.float64)
    return Process(shape, projection, found, 0.2, additive=additive, trend=trend)


def _dense(process: Process, projection: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    """Compute the covariance from the distances of the projections, one pair at a time."""
    z = X @ projection
    parts = [z[:, i : i + 1] for i in range(z.shape[1])] if process.additive else [z]
    kernel = KERNELS[process.shape]
    *radial, linear = [*process.variances] if process.trend else [*process.variances, 0.0]
    return linear * z @ z.T + sum(
        v * kernel((part[:, None] - part[None]).square().sum(-1))
        for v, part in zip(radial, parts, strict=True)
    )


def _covariance(process: Process, projection: torch.Tensor, data: Data) -> torch.Tensor:
    diagonal = process.noise * data.spread + JITTER * process.variances.sum()
    return _dense(process, projection, data.X) + torch.diag(diagonal)


@pytest.mark.parametrize("rows_of_a_tile", [128, 5])
@pytest.mark.parametrize(("shape", "additive", "trend"), CASES)
def test_evidence_and_its_slopes(
    shape: str, additive: bool, trend: bool, rows_of_a_tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flattest.regression.evidence._TILE", rows_of_a_tile)
    data, process = _data(), _process(shape, additive, trend)
    projection = process.projection.clone().requires_grad_()
    K = _covariance(process, projection, data)
    normal = torch.distributions.MultivariateNormal(torch.zeros(12, dtype=torch.float64), K)
    expected = normal.log_prob(data.y[:, 0])
    expected.backward()
    value, slope, in_variances, in_noise = evidence_and_slopes(data.blocks(12), process)
    assert value == pytest.approx(float(expected.detach()), rel=1e-10)
    torch.testing.assert_close(slope, projection.grad, rtol=1e-7, atol=1e-9)
    for index, found in enumerate([*in_variances, *in_noise]):
        shifted = []
        for step in (1e-5, -1e-5):
            factors = torch.ones(len(process.variances) + 1, dtype=torch.float64)
            factors[index] = np.exp(step)
            moved = process._replace(
                variances=process.variances * factors[:-1], noise=process.noise * float(factors[-1])
            )
            shifted.append(evidence(data.blocks(12), moved))
        assert found == pytest.approx((shifted[0] - shifted[1]) / 2e-5, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("shape", "additive"), [("gaussian", False), ("matern12", True)])
def test_slope_in_a_trend(shape: str, additive: bool) -> None:
    data, process = _data().blocks(6), _process(shape, additive)
    found = trend_slope(data, process)
    without = evidence(data, process)
    steps = torch.tensor([1e-6, 2e-6], dtype=torch.float64)
    one, two = (
        evidence(data, process._replace(variances=torch.cat([process.variances, v]), trend=True))
        for v in steps[:, None]
    )
    slope = (4 * one - two - 3 * without) / 2e-6
    # The jitter grows with the variance as well.
    assert found == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_blocks_are_independent() -> None:
    data, process = _data(), _process("matern52", False)
    halves = [data.take(torch.arange(6)), data.take(torch.arange(6, 12))]
    whole = evidence(data.blocks(6), process)
    assert whole == pytest.approx(sum(evidence(half.blocks(6), process) for half in halves))


@pytest.mark.parametrize(("least", "sizes"), [(7, (2, 6)), (4, (2, 6)), (3, (4, 3)), (2, (6, 2))])
def test_blocks_are_cut_into_parts(least: int, sizes: tuple[int, int]) -> None:
    data = _data().blocks(6)
    parts = data.cut(least)
    assert parts.y.shape == (*sizes, 1)
    assert parts.spread.shape == sizes
    for part, whole in zip(parts, data, strict=True):
        torch.testing.assert_close(part.flatten(0, 1), whole.flatten(0, 1))


def test_rows_that_fill_no_part_are_left_out() -> None:
    seven = Data(*(values[:, :7] for values in _data().blocks(12)))
    torch.testing.assert_close(seven.cut(3).y.flatten(), _data().y[:6, 0])


def test_fits_on_parts_are_scored_on_whole_blocks() -> None:
    data, start = _data().blocks(12), _process("matern52", False)
    effort = Effort(max_iter=3, tol=1e-3, part=6)
    fitted = fit_process(data, start, effort)
    assert fitted.evidence == pytest.approx(evidence(data, fitted))
    there = fit_process(data.cut(6), start, effort)
    torch.testing.assert_close(fitted.projection, there.projection)


@pytest.mark.parametrize(("shape", "additive", "trend"), CASES)
def test_posterior_of_known_directions(shape: str, additive: bool, trend: bool) -> None:
    data, process = _data(), _process(shape, additive, trend)
    posterior = Posterior.of(process, data)
    K = _covariance(process, process.projection, data)
    fresh = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 4)))
    cross = _dense(process, process.projection, torch.cat([fresh, data.X]))[:5, 5:]
    mean, variance, _ = posterior(fresh)
    torch.testing.assert_close(mean, cross @ torch.linalg.solve(K, data.y[:, 0]))
    prior = _dense(process, process.projection, fresh).diagonal()
    torch.testing.assert_close(
        variance, prior - (cross * torch.linalg.solve(K, cross.T).T).sum(1), rtol=1e-6, atol=1e-8
    )


def _known(posterior: Posterior) -> Posterior:
    """Take the directions for known."""
    n = len(posterior.points)
    nothing = torch.zeros(0, 0, dtype=torch.float64), torch.zeros(n, 0, dtype=torch.float64)
    return posterior._replace(turn=nothing[0], known=nothing[1])


def test_left_out_rows_are_predicted_by_the_others() -> None:
    data, process = _data(), _process("gaussian", True)
    residual, variance = _known(Posterior.of(process, data)).left_out()
    for row in range(3):
        others = torch.tensor([i for i in range(12) if i != row])
        posterior = _known(Posterior.of(process, data.take(others)))
        mean, spread, _ = posterior(data.X[row : row + 1])
        assert float(residual[row]) == pytest.approx(float(data.y[row, 0] - mean), rel=1e-5)
        noise = process.noise * float(data.spread[row])
        assert float(variance[row]) == pytest.approx(float(spread) + noise, rel=1e-5)


@pytest.mark.parametrize("shape", ["gaussian", "matern52", "linear"])
def test_inducing_points_at_all_rows_are_exact(shape: str) -> None:
    data, process = _data(), _process(shape, False)
    fresh = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 4)))
    exact, through = Posterior.of(process, data), Posterior.of(process, data, data.X)
    for one, other in zip(exact(fresh)[:2], through(fresh)[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "additive", "trend"), [*CASES, pytest.param("linear", False, False)]
)
def test_gradients_of_the_mean(shape: str, additive: bool, trend: bool) -> None:
    data, process = _data(), _process(shape, additive, trend)
    found = gradients(data.blocks(12), process)
    posterior = Posterior.of(process, data)
    torch.testing.assert_close(posterior.gradients(data.X), found, rtol=1e-6, atol=1e-8)
    inverse = torch.linalg.pinv(process.projection)
    for column in range(2):
        # The kernel with a kink magnifies the rounding of distances.
        size = 1e-3 if shape == "matern12" else 1e-5
        step = size * inverse[column]
        up, down = posterior(data.X + step)[0], posterior(data.X - step)[0]
        torch.testing.assert_close(found[:, column], (up - down) / (2 * size), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("free", ["projection", "lengths", "scale"])
def test_a_fit_ends_where_the_evidence_is_flat(free: str) -> None:
    data = _data(60, 3).blocks(60)
    y = (data.X[..., :1] ** 2 + 0.1 * data.y).sub_(1)
    start = _process("gaussian", False, d=3)._replace(free=free)
    data = data._replace(y=y)
    fitted = fit_process(data, start, Effort(max_iter=500, tol=1e-12))
    assert fitted.converged
    gain = fitted.spent / 2 * (np.log(fitted.noise) - np.log(start.noise))
    assert fitted.evidence + gain > evidence(data, start)
    assert fitted.evidence == pytest.approx(evidence(data, fitted))
    _, slope, in_variances, in_noise = evidence_and_slopes(data, fitted)
    in_noise = in_noise + fitted.spent / 2  # the likelihood that is maximised is a restricted one
    scale = (slope * fitted.projection).sum(0)
    slopes = {"projection": slope, "lengths": scale, "scale": scale.sum()}[free]
    inside = np.abs(np.log(fitted.variances.numpy())) < 7.9  # elsewhere the bound holds it back
    assert slopes.abs().max() < 0.1
    assert np.abs(np.where(inside, in_variances, 0)).max() < 0.1
    assert np.abs(in_noise).max() < 0.1
    if free == "scale":
        ratio = fitted.projection / start.projection
        torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


def test_parameters_that_change_nothing_have_no_price() -> None:
    def count(**changes: object) -> int:
        return _process("gaussian", False)._replace(**changes).n_parameters

    assert count() == 4 * 2 - 1 + 2  # a turn in the plane is free
    assert _process("gaussian", True).n_parameters == 4 * 2 + 3
    assert _process("gaussian", False, True).n_parameters == 4 * 2 - 1 + 3
    assert count(free="lengths") == 2 + 2
    assert count(free="scale") == 1 + 2


def _nearly_linear(noise: float) -> Data:
    rng = np.random.default_rng(3)
    X = torch.from_numpy(rng.standard_normal((120, 5)))
    y = (X @ torch.tensor([1.0, -2.0, 0.0, 0.0, 0.5], dtype=torch.float64) / 2).sin()
    y += noise * torch.from_numpy(rng.standard_normal(120))
    return Data.of(X, (y - y.mean()) / y.std(), torch.ones(120, dtype=torch.float64)).blocks(120)


@pytest.mark.parametrize("noise", [0.5, 0.1, 0.0])
def test_single_precision_comes_to_the_end_of_double(noise: float) -> None:
    # Without noise most of the way is beyond what single precision can follow.
    data, rng = _nearly_linear(noise), np.random.default_rng(4)
    start = Process(
        "matern52",
        torch.from_numpy(rng.standard_normal((5, 1))),
        torch.ones(1, dtype=torch.float64),
        noise=0.1,
    )
    double = Effort(max_iter=200, tol=1e-7)
    ends = [fit_process(data, start, effort) for effort in (double, double._replace(single=2e-2))]
    assert ends[1].projection.dtype == torch.float64
    assert ends[1].evidence == pytest.approx(ends[0].evidence, rel=1e-2, abs=0.5)
