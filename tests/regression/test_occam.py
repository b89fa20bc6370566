"""What fitted directions cost, against dense linear algebra and finite differences."""

import math

import numpy as np
import pytest
import torch

from flattest.regression.evidence import evidence, factorise
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.occam import Linearised, degrees_of_freedom, design, scored
from flattest.regression.posterior import Posterior

N, D = 40, 4


def _distances(z: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    squares = (z[:, None] - points).square().sum(-1)
    return torch.where(squares > 1e-20, squares, 1e-300).sqrt()


KERNELS = {
    "gaussian": lambda z, points: torch.exp(-_distances(z, points).square() / 2),
    "matern12": lambda z, points: torch.exp(-_distances(z, points)),
    "matern52": lambda z, points: (
        (1 + 5**0.5 * _distances(z, points) + 5 / 3 * _distances(z, points).square())
        * torch.exp(-(5**0.5) * _distances(z, points))
    ),
    "linear": lambda z, points: z @ points.T,
}
KINDS = [
    pytest.param("gaussian", "projection", False, False, id="gaussian"),
    pytest.param("matern52", "projection", True, False, id="sum"),
    pytest.param("matern52", "projection", False, True, id="trend"),
    pytest.param("matern12", "lengths", False, False, id="lengths"),
    pytest.param("gaussian", "scale", False, False, id="scale"),
    pytest.param("linear", "scale", False, False, id="linear"),
]


def _data(seed: int = 0, n: int = N) -> Data:
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.standard_normal((n, D)))
    y = torch.sin(X[:, 0] + X[:, 1]) + 0.3 * torch.from_numpy(rng.standard_normal(n))
    return Data.of(X, y, torch.from_numpy(rng.uniform(0.5, 2, n)))


def _process(shape: str, free: str, additive: bool, trend: bool) -> Process:
    rng = np.random.default_rng(1)
    projection = torch.from_numpy(rng.standard_normal((D, 2 if free == "projection" else D))) / 2
    if free != "projection":
        projection = torch.diag(projection.diagonal().abs() + 0.2)
    count = (projection.shape[1] if additive else 1) + trend
    variances = torch.from_numpy(rng.uniform(0.3, 1, count))
    return Process(shape, projection, variances, 0.2, additive=additive, free=free, trend=trend)


def _columns(process: Process, posterior: Posterior, X: torch.Tensor) -> torch.Tensor:
    """Differentiate the mean in what is fitted of the projection, and scale by its prior sizes."""

    def mean(B: torch.Tensor) -> torch.Tensor:
        z, total = X @ B, torch.zeros(len(X), dtype=torch.float64)
        for v, (shape, part) in zip(process.variances, process.terms, strict=True):
            kernel = KERNELS[shape](z[:, part], posterior.points[:, part])
            total = total + v * kernel @ posterior.weights
        return total

    B = process.projection
    if process.free == "projection":
        J = torch.autograd.functional.jacobian(mean, B)
        return J.flatten(1) * B.square().mean().sqrt()

    def of_logarithms(logs: torch.Tensor) -> torch.Tensor:
        return mean(B * logs.exp())

    logs = torch.zeros(B.shape[1] if process.free == "lengths" else 1, dtype=torch.float64)
    return torch.autograd.functional.jacobian(of_logarithms, logs)


def _dense(process: Process, data: Data) -> torch.Tensor:
    z = data.X @ process.projection
    K = process.covariance(z, z)
    return K + torch.diag(process.noise * data.spread + 1e-8 * process.variance)


@pytest.mark.parametrize(("shape", "free", "additive", "trend"), KINDS)
def test_columns_are_the_derivatives_of_the_mean(
    shape: str, free: str, additive: bool, trend: bool
) -> None:
    process = _process(shape, free, additive, trend)
    posterior, fresh = Posterior.of(process, _data()), _data(seed=3, n=7).X
    found = design(
        process, fresh, fresh @ process.projection, posterior.points, posterior.weights[:, None]
    )
    torch.testing.assert_close(found, _columns(process, posterior, fresh), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("shape", "free", "additive", "trend"), KINDS)
def test_predictions_are_less_sure_by_the_linear_model(
    shape: str, free: str, additive: bool, trend: bool
) -> None:
    process, data, fresh = _process(shape, free, additive, trend), _data(), _data(seed=3, n=7).X
    posterior = Posterior.of(process, data)
    mean, variance, doubt = posterior(fresh)
    # The directions' errors as explicit basis functions: one larger process of known directions.
    C, c = _columns(process, posterior, data.X), _columns(process, posterior, fresh)
    K = _dense(process, data) + C @ C.T
    z, points = fresh @ process.projection, posterior.points
    cross = process.covariance(z, points) + c @ C.T
    prior = process.prior(z) + c.square().sum(1)
    expected = prior - (cross * torch.linalg.solve(K, cross.T).T).sum(1)
    torch.testing.assert_close(variance + doubt, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(mean, process.covariance(z, points) @ posterior.weights)
    # Without a row, whose say in the directions is taken back too.
    precision = torch.linalg.inv(K).diagonal()
    residual, of_residual = posterior.left_out()
    torch.testing.assert_close(of_residual, 1 / precision, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(residual, posterior.weights / precision, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("shape", "free", "additive", "trend"), KINDS)
def test_the_score_counts_all_directions(
    shape: str, free: str, additive: bool, trend: bool
) -> None:
    process, data = _process(shape, free, additive, trend), _data()
    found = scored(data.blocks(N), process)
    C = _columns(process, Posterior.of(process, data), data.X)
    K = _dense(process, data)
    shrinkage = (torch.linalg.slogdet(K + C @ C.T)[1] - torch.linalg.slogdet(K)[1]) / 2
    entries = process.n_parameters - len(process.variances) - 1
    price = float(shrinkage) + entries / 2 + (len(process.variances) + 1) * math.log(N) / 2
    if free != "projection":
        price = process.n_parameters * math.log(N) / 2
    assert found.evidence == evidence(data.blocks(N), process)
    assert found.score == pytest.approx(found.evidence - price, rel=1e-9)


def test_blocks_share_their_directions() -> None:
    process, data = _process("gaussian", "projection", False, False), _data()
    halves = [data.take(torch.arange(20)), data.take(torch.arange(20, 40))]
    blocks = data.blocks(20)
    factored = factorise(blocks, process)
    assert factored is not None
    linear = Linearised.of(process, blocks, factored)
    inner = torch.eye(8, dtype=torch.float64)
    for half in halves:
        C = _columns(process, Posterior.of(process, half), half.X)
        inner += C.T @ torch.linalg.solve(_dense(process, half), C)
    torch.testing.assert_close(linear.factor @ linear.factor.T, inner, rtol=1e-8, atol=1e-10)


def test_degrees_of_freedom_are_the_slope_of_the_shrinkage_in_the_noise() -> None:
    process, data = _process("matern52", "projection", False, False), _data()
    C = _columns(process, Posterior.of(process, data), data.X)

    def shrinkage(log_noise: float) -> float:
        K = _dense(process._replace(noise=process.noise * math.exp(log_noise)), data)
        inner = torch.eye(8, dtype=torch.float64) + C.T @ torch.linalg.solve(K, C)
        return float(torch.linalg.slogdet(inner)[1])

    slope = (shrinkage(-1e-5) - shrinkage(1e-5)) / 2e-5
    assert degrees_of_freedom(data.blocks(N), process) == pytest.approx(slope, rel=1e-6)
    assert 0 < slope < 8


def test_known_directions_take_no_degrees_of_freedom() -> None:
    for free in ("lengths", "scale"):
        process = _process("gaussian", free, False, False)
        assert degrees_of_freedom(_data().blocks(N), process) == 0


def test_no_score_with_fewer_than_two_rows_per_parameter() -> None:
    process = _process("gaussian", "projection", False, False)
    p = process.n_parameters
    for n in (2 * p - 1, 2 * p):
        data = _data(n=n).blocks(n)
        assert math.isinf(scored(data, process).score) == (n < 2 * p)
