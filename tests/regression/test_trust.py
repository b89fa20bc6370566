"""How far a regressor trusts its network beside its Gaussian process."""

import numpy as np
import pytest
import torch
from conditioned import conditioned_link

import flattest as ft
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.smooth_link import SmoothLink
from flattest.regression.training_data import Rows
from flattest.regression.trust import HeldOutFold, choose_error, fold_errors, trusting
from flattest.regression.tuning import NETWORK_ERRORS


@pytest.mark.parametrize("logarithmic", [False, True])
def test_held_out_rows_beside_a_process_that_does_not_know_them(logarithmic):
    rng = np.random.default_rng(0)
    X, weight = rng.standard_normal((20, 2)), rng.uniform(0.5, 2, 20)
    y = np.exp(np.sin(X[:, 0]))
    rows = Rows.of(X, y, weight)
    link, standardise = conditioned_link(rows, logarithmic=logarithmic)
    train, held_out = Rows.of(X[:15], y[:15], weight[:15]), Rows.of(X[15:], y[15:], weight[15:])
    outputs = held_out.y + rng.uniform(0, 0.2, 5)  # logarithms of less than was seen are cut off
    fold = HeldOutFold(train, held_out, torch.from_numpy(outputs))
    ((unit_error, blended),) = fold_errors(link, standardise, fold)

    # With NumPy alone.
    units, noise = link.units, link.mixture.noise
    scaled = lambda y: (np.log(y) if logarithmic else y) / units.size - units.centre / units.size  # noqa: E731
    z, points = standardise(held_out.X)[:, 0], standardise(train.X)[:, 0]
    kernel = lambda a, b: 0.9 * np.exp(-np.square(a[:, None] - b) / 2)  # noqa: E731
    K, k = kernel(points, points) + np.diag(noise / train.weight), kernel(z, points)
    mean = k @ np.linalg.solve(K, scaled(train.y))
    variance = 0.9 - (k * np.linalg.solve(K, k.T).T).sum(1)
    average = lambda values: np.average(values, weights=held_out.weight)  # noqa: E731
    assert unit_error == pytest.approx(average((scaled(outputs) - scaled(held_out.y)) ** 2))
    for error, found in zip(NETWORK_ERRORS, blended, strict=True):
        precision = 1 / variance + 1 / error
        middle = (mean / variance + scaled(outputs) / error) / precision
        target = units.centre + units.size * middle
        if logarithmic:
            target = np.exp(target + units.size**2 * noise / 2)
        assert found == pytest.approx(average((target - held_out.y) ** 2), rel=1e-5)


def test_a_network_is_not_trusted_more_than_it_deserves():
    falling = np.linspace(1, 2, len(NETWORK_ERRORS))  # the less trust, the worse
    assert 0.03 / 10**0.5 <= choose_error(0.03, falling) <= 0.03
    assert choose_error(0.03, falling[::-1]) == NETWORK_ERRORS[-1]


def _folds(y: np.ndarray, outputs: list[np.ndarray]) -> tuple[SmoothLink, Standardisation, list]:
    """Return a link, and folds that hold every other row out, with predictions of these."""
    rows = Rows.of(np.arange(float(len(y)))[:, None], y, np.ones(len(y)))
    link, standardise = conditioned_link(rows, logarithmic=False)
    parts = [np.arange(start, len(y), 2) for start in (0, 1)]
    folds = [
        HeldOutFold(rows.part(other), rows.part(here), torch.from_numpy(values))
        for here, other, values in zip(parts, parts[::-1], outputs, strict=True)
    ]
    return link, standardise, folds


def test_trust_is_the_choice_by_the_mean_errors_of_the_folds():
    y = np.arange(8.0) ** 2
    link, standardise, folds = _folds(y, [y[::2] + 1, y[1::2] - 2])
    found = trusting(link, standardise, folds).parts[0].network_error
    alone, blended = zip(*(fold_errors(link, standardise, fold)[0] for fold in folds), strict=True)
    assert found == choose_error(np.mean(alone), np.mean(blended, axis=0))
    assert trusting(link, standardise, []) is link  # nothing held out
    assert link.parts[0].network_error == NETWORK_ERRORS[-1]


def test_folds_that_part_the_rows_need_no_new_conditioning():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 2)), rng.standard_normal(30)
    for weight, closed in ((np.ones(30), True), (rng.uniform(0.5, 2, 30), False)):
        rows = Rows.of(X, y, weight)
        link, standardise = conditioned_link(rows, logarithmic=False)
        here = np.arange(0, 30, 4)
        others = np.setdiff1d(np.arange(30), here)
        outputs = torch.from_numpy(rng.standard_normal(len(here)))
        fold = HeldOutFold.of(rows, rows.part(others), rows.part(here), outputs)
        assert (fold.place is not None) == closed
        ((alone, blended),) = fold_errors(link, standardise, fold)
        ((again, slowly),) = fold_errors(link, standardise, fold._replace(place=None))
        assert alone == again
        np.testing.assert_allclose(blended, slowly, rtol=1e-8)
    part = HeldOutFold.of(rows, rows.part(others[1:]), rows.part(here), outputs)
    assert part.place is None  # a row is in neither part


def test_a_network_that_knows_the_truth_is_trusted_more_than_one_that_does_not():
    y = np.arange(40.0) ** 2
    right, wrong = [y[::2], y[1::2]], [0 * y[::2], 0 * y[1::2]]
    trusted, distrusted = (
        trusting(*_folds(y, outputs)).parts[0].network_error for outputs in (right, wrong)
    )
    assert trusted == NETWORK_ERRORS[0]
    assert distrusted > 1


def test_a_network_has_no_say_where_a_process_knows_better():
    # Beyond the data a network goes on as a straight line, a smooth process of a cubic bends.
    rng = np.random.default_rng(0)
    X, X_test = rng.standard_normal((200, 4)), rng.standard_normal((2000, 4))
    cubic = lambda X: (X[:, 0] + X[:, 1]) ** 3  # noqa: E731
    model = ft.MultiIndexRegressor(random_state=0).fit(X, cubic(X))
    inputs = model.predictor_.standardise(X_test)
    link, zero = model.predictor_.link, np.zeros(len(inputs))
    part = link.parts[0]
    assert len(link.parts) == 1
    outputs = model.intercept_ + model.predictor_.network(link.limits(inputs))
    trusted = float(model.path_.held_out_error.min()) / part.units.size**2
    ignored, believed, chosen = (
        np.square(values - cubic(X_test)).mean()
        for values in (
            part._replace(network_error=1e8)(inputs @ link.basis, zero)[0],
            part._replace(network_error=trusted)(inputs @ link.basis, outputs)[0],
            model.predict(X_test),
        )
    )
    assert chosen <= 1.01 * ignored
    assert chosen <= 0.5 * believed
