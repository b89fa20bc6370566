"""Every method on awkward data: what it returns is finite, and the status is true.

The data are small, so that the run-time type checker sees every method here at little cost; the
tests of what the methods find run without it.
"""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from zoo import ZOO, fit, gaussian

import flattest as ft


@pytest.mark.parametrize("name", ZOO)
def test_float32_in_float32_out(name):
    X, y = gaussian(12, 5)
    result = fit(name, X.float(), y.float())
    assert result.net.weights.dtype == torch.float32
    # Steep networks may lose the data in rounding, and must then say so.
    mse = float((result.net(X.float()).detach() - y.float()).square().mean())
    assert mse <= 1e-9 or result.status is ft.Status.NOT_INTERPOLATING


@pytest.mark.parametrize("name", ZOO)
def test_what_no_network_fits_is_reported(name):
    X, y = gaussian(6, 4)
    X, y = torch.cat([X, X[:1]]), torch.cat([y, y[:1] + 1])
    result = fit(name, X, y, max_iter=20)
    assert result.status is ft.Status.NOT_INTERPOLATING
    assert np.isfinite(result.flatness.trace)


@pytest.mark.parametrize("name", ZOO)
def test_zero_rows_and_repeated_samples(name):
    X, y = gaussian(10, 4)
    X, y = torch.cat([X, 0 * X[:2], X[:2]]), torch.cat([y, 0 * y[:2], y[:2]])
    result = fit(name, X, y)
    assert result.train_error <= 1e-10
    y[0] = y[12] = 0
    assert fit(name, X, y).train_error <= 1e-10


@pytest.mark.parametrize("name", ZOO)
def test_zero_targets_give_the_zero_network(name):
    X, y = gaussian()
    result = fit(name, X, 0 * y, width=3)
    assert result.converged
    assert result.flatness.trace == 0


@pytest.mark.parametrize("name", ZOO)
def test_more_features_than_samples(name):
    X, y = gaussian(4, 11)
    assert fit(name, X, y).train_error <= 1e-10


@pytest.mark.parametrize("name", ZOO)
def test_one_sample(name):
    X, y = gaussian(1, 4)
    if name == "slabs":
        with pytest.raises(ValueError, match="rank 2 or more"):
            fit(name, X, y)
        return
    result = fit(name, X, y)
    assert result.train_error <= 1e-10 or name == "poisoned"  # whose inputs then are all the same
    assert (result.train_error <= 1e-10) == (result.status is not ft.Status.NOT_INTERPOLATING)


@pytest.mark.parametrize("name", ZOO)
def test_one_neuron_fits_or_says_not(name):
    X, y = gaussian(8, 3)
    try:
        result = fit(name, X, y, width=1, max_iter=50)
    except ValueError as error:
        assert "width must be at least" in str(error)  # noqa: PT017 - either is an answer
    else:
        assert result.status is ft.Status.NOT_INTERPOLATING


@pytest.mark.parametrize("method", ["sgd", "label_noise_sgd", "sam"])
@pytest.mark.parametrize(("n", "d", "m"), [(1, 1, 1), (1, 5, 3), (3, 8, 1), (20, 2, 4)])
def test_small_data_end_with_a_status_that_is_true(method, n, d, m):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    X[-1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = ft.interpolate(X, y, method, width=m, random_state=0, max_iter=300)
    assert result.converged == (result.train_error <= 1e-10 * float((y**2).mean()))
