"""What a fit hands over predicts what the fit itself says, and so does what is stored of it."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import flattest as ft
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.handover import average_of, network_of, predictor_of
from flattest.regression.kernels import SHAPES
from flattest.regression.mixture import Mixture
from flattest.regression.posterior import Posterior
from flattest.regression.prediction import kernels
from flattest.regression.prediction.average import Average
from flattest.regression.prediction.limits import Limits
from flattest.regression.prediction.predictor import Predictor
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.prediction.target_scale import TargetScale
from flattest.regression.smooth_link import Part, SmoothLink
from flattest.regression.training_data import evaluate
from flattest.regression.variation import Variation

DOUBLE = torch.float64
KINDS = st.fixed_dictionaries(
    {
        "shape": st.sampled_from([*SHAPES, "linear"]),
        "free": st.sampled_from(["projection", "lengths", "scale"]),
        "additive": st.booleans(),
        "trend": st.booleans(),
    }
)
MIXTURES = st.lists(KINDS, min_size=1, max_size=3)
SEEDS = st.integers(0, 10_000)
ACTIVATIONS = ["relu", "leaky_relu", "abs", "linear", "relu2", "quadratic", "relu3", "cubic"]
ACTIVATIONS += [ft.Homogeneous(1.5, 0.7, -2.0)]


def process(rng: np.random.Generator, h: int, kind: dict[str, Any]) -> Process:
    k = int(rng.integers(1, h + 1)) if kind["free"] == "projection" else h
    B = rng.standard_normal((h, k)) / h**0.5
    if kind["free"] != "projection":
        B = np.diag(rng.uniform(0.2, 1, h))
    if kind["shape"] == "linear":
        kind = kind | {"additive": False, "trend": False}
    variances = rng.uniform(0.3, 1, (k if kind["additive"] else 1) + kind["trend"])
    return Process(
        projection=torch.from_numpy(B),
        variances=torch.from_numpy(variances),
        noise=rng.uniform(0.1, 0.5),
        inflation=rng.uniform(1, 2),
        **kind,
    )


def mixture(
    rng: np.random.Generator, data: Data, kinds: list[dict[str, Any]], *, exact: bool
) -> Mixture:
    processes = [process(rng, data.X.shape[1], kind) for kind in kinds]
    shares = rng.dirichlet(np.ones(len(kinds))).tolist()
    if exact:
        return Mixture.exactly(processes, shares, data)
    posteriors = tuple(Posterior.of(each, data, data.X[:7]) for each in processes)
    return Mixture(posteriors, tuple(shares), None)


def rounding(fitted: Mixture, X: np.ndarray) -> float:
    """Return how far two computations may differ.

    Where inducing points are close, large numbers cancel in the variance. A kernel with a kink has
    a slope in the distance, which is the root of a difference of squares: that of close points has
    few digits.
    """
    allowed = 1e-9
    for posterior in fitted.posteriors:
        allowed = max(allowed, 1e-15 * float(posterior.explained.norm()))
        each = posterior.process
        z = torch.from_numpy(X) @ each.projection
        for shape, part in each.terms:
            if shape == "matern12":
                share = torch.pdist(z[:, part]).min() / z[:, part].norm(dim=1).max()
                allowed = max(allowed, 1e-13 / float(share) ** 2)
    return allowed


def rows(rng: np.random.Generator, n: int, h: int) -> Data:
    X, y = rng.standard_normal((n, h)), rng.standard_normal(n)
    return Data.of(*map(torch.from_numpy, (X, y, rng.uniform(0.5, 2, n))))


@given(seed=SEEDS, kinds=MIXTURES, exact=st.booleans(), n=st.sampled_from([8, 30, 520]))
def test_arrays_predict_what_tensors_predict(
    seed: int, kinds: list[dict[str, Any]], exact: bool, n: int
) -> None:
    rng = np.random.default_rng(seed)
    h = int(rng.integers(1, 5))
    data = rows(rng, n, h)
    fitted = mixture(rng, data, kinds, exact=exact)
    fresh = rng.standard_normal((300 if n == 30 else 5, h))  # in one block, and in more
    expected = fitted(torch.from_numpy(fresh))
    tolerance = rounding(fitted, np.concatenate([fresh, data.X]))
    average = average_of(fitted)
    found = [average]
    if average.rows is not None:
        found.append(Average.exactly(average.priors, average.shares, average.rows))
    for each in found:
        for values, tensor in zip(each(fresh), expected, strict=True):
            np.testing.assert_allclose(values, tensor, rtol=tolerance, atol=tolerance)
    assert average.noise == pytest.approx(fitted.noise, rel=1e-12)


@given(seed=SEEDS, activation=st.sampled_from(ACTIVATIONS), bias=st.booleans())
def test_a_network_of_arrays_has_the_outputs_of_tensors(
    seed: int, activation: Any, bias: bool
) -> None:
    rng = np.random.default_rng(seed)
    m, d, n = rng.integers(1, 6, 3)
    net = ft.TwoLayerNet(rng.standard_normal((m, d + bias)), rng.standard_normal(m), activation)
    inputs = rng.standard_normal((n, d))
    inputs[0] = 0.0
    found, expected = network_of(net)(inputs), evaluate(net, torch.from_numpy(inputs))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_fits_and_predictions_know_the_same_kernels() -> None:
    assert set(SHAPES) == set(kernels.SHAPES)


def test_many_rows_of_a_network_are_evaluated_in_blocks() -> None:
    net = ft.TwoLayerNet([[1.0, 0.5]], [2.0], "relu")
    inputs = np.linspace(-2, 2, 20_001)[:, None]
    np.testing.assert_allclose(network_of(net)(inputs), np.maximum(2 * inputs[:, 0] + 1, 0))
    assert network_of(net)(inputs[:0]).shape == (0,)


def link_and_network(
    seed: int, kinds: list[dict[str, Any]], units: list[bool], *, exact: bool, bias: bool
) -> tuple[SmoothLink, ft.TwoLayerNet, Standardisation]:
    """Make what a fit finds, in coordinates of which there are fewer than features."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((25, 4)) * [1, 10, 1, 0.1], np.exp(rng.standard_normal(25))
    standardise = Standardisation.of(X, y, np.ones(25), centred=bias)
    inputs = standardise(X)
    basis = np.linalg.qr(rng.standard_normal((4, 3)))[0]
    parts = []
    for logarithmic, share in zip(units, (0.7, 0.3), strict=False):
        scale = TargetScale.of(y, np.ones(25), logarithmic=logarithmic, centred=bias)
        arrays = inputs @ basis, scale(y), np.ones(25)
        data = Data.of(*map(torch.from_numpy, arrays))
        error = float(rng.choice([0.1, 1e8]))
        fitted = mixture(rng, data, kinds, exact=exact)
        parts.append(Part(fitted, scale, share if len(units) > 1 else 1.0, error))
    limits = Limits.of(basis[:, :2], np.array([2.0, 1.0]), inputs @ basis[:, :2])
    net = ft.TwoLayerNet(rng.standard_normal((5, 4 + bias)), rng.standard_normal(5), "relu")
    nothing = torch.zeros(0, dtype=DOUBLE)
    variation = Variation(nothing, torch.zeros(4, 0, dtype=DOUBLE), nothing)
    link = SmoothLink(tuple(parts), torch.from_numpy(basis), limits, [], variation)
    return link, net, standardise


def stored(predictor: Predictor) -> Predictor:
    """Return what comes back of a predictor that is written as JSON and arrays."""
    description = json.loads(json.dumps(predictor.description(), allow_nan=False))
    return Predictor.of(description, predictor.arrays().__getitem__)


UNITS = st.sampled_from([[False], [True], [False, True], [True, False]])


@given(seed=SEEDS, kinds=MIXTURES, units=UNITS, exact=st.booleans(), bias=st.booleans())
def test_a_predictor_follows_the_formula(
    seed: int, kinds: list[dict[str, Any]], units: list[bool], exact: bool, bias: bool
) -> None:
    link, net, standardise = link_and_network(seed, kinds, units, exact=exact, bias=bias)
    X = np.random.default_rng(seed + 1).standard_normal((6, 4)) * [2, 20, 2, 0.2]
    # The same from the tensors: pulled back, conditioned, blended with the network, in units of y.
    inputs = (X - standardise.mean) * standardise.inverse_scale
    axes = torch.from_numpy(link.limits.axes)
    low, high = map(torch.from_numpy, link.limits[1:])
    inside = torch.from_numpy(inputs)
    z = inside @ axes
    inside = inside + (z.clamp(low, high) - z) @ axes.T
    outputs = standardise.intercept + evaluate(net, inside)
    means, squares = 0.0, 0.0
    for fitted, scale, share, error in link.parts:
        mean, variance, doubt = fitted(inside @ link.basis)
        seen = outputs.clamp_min(scale.least).log() if scale.logarithmic else outputs
        precision = 1 / variance.clamp_min(1e-300) + 1 / error
        mean = (
            mean / variance.clamp_min(1e-300) + (seen - scale.centre) / scale.size / error
        ) / precision
        mean, noise = scale.centre + scale.size * mean, scale.size**2 * fitted.noise
        variance = scale.size**2 * (variance + doubt) + noise
        if scale.logarithmic:
            most = scale.most + 0.25 * (scale.most - scale.least)
            mean = (mean + noise / 2).exp().clamp_max(most)
            variance = variance.expm1() * mean.square()
        means = means + share * mean
        squares = squares + share * (variance + mean.square())
    deviation = (squares - means**2).sqrt()
    predictor = predictor_of(net, standardise, link)
    for each in (predictor, stored(predictor)):
        np.testing.assert_allclose(each(X), means, rtol=1e-8, atol=1e-8)
        found, spread = each.law(X).moments()
        np.testing.assert_array_equal(found, each(X))
        np.testing.assert_allclose(spread, deviation, rtol=1e-6)
    alone = predictor_of(net, standardise, None)
    expected = standardise.intercept + evaluate(net, torch.from_numpy(inputs))
    for each in (alone, stored(alone)):
        np.testing.assert_allclose(each(X), expected, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_conditioned_is_refused() -> None:
    for n in (3, 600):
        data = rows(np.random.default_rng(0), n, 2)
        kind = {"shape": "gaussian", "free": "projection", "additive": False, "trend": False}
        average = average_of(mixture(np.random.default_rng(0), data, [kind], exact=True))
        damaged = average.priors[0]._replace(noise=-2.0)
        assert average.rows is not None
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            Average.exactly([damaged], [1.0], average.rows)
