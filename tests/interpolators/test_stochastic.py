"""Methods on minibatches, against autograd at the place where each takes its gradient."""

import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

import flattest as ft
from flattest.interpolators import METHODS
from flattest.interpolators.minibatch import Minibatch, gradient, neurons, pull
from flattest.interpolators.result import Problem
from flattest.interpolators.sam import uphill_per_sample, uphill_together

ACTIVATIONS = ["relu", "leaky_relu", "abs", "linear", "relu2", "cubic", (1.5, 1, -0.3)]
NOISY = ["label_noise_sgd", "sam"]


def activation(spec):
    return ft.activation(spec) if isinstance(spec, str) else ft.Homogeneous(*spec)


def network(n=7, d=4, m=5, seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    return Minibatch(X, y, (X**2).sum(1)), rng.standard_normal((m, d)), rng.standard_normal(m)


def autograd(act, X, y, W, a):
    """Gradient of the mean squared error, by PyTorch."""
    X, y, W, a = (torch.as_tensor(values) for values in (X, y, W, a))
    W, a = W.clone().requires_grad_(), a.clone().requires_grad_()
    loss = (act(X @ W.T) @ a - y).square().mean()
    return [found.numpy() for found in torch.autograd.grad(loss, (W, a))]


@pytest.mark.parametrize("spec", ACTIVATIONS)
def test_gradients_agree_with_autograd(spec):
    act, (batch, W, a) = activation(spec), network()
    for found, expected in zip(
        gradient(batch, pull(act, batch, W, a)), autograd(act, *batch[:2], W, a), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", ACTIVATIONS)
def test_arrays_and_tensors_give_the_same_with_samples_on_the_kink(spec):
    act, (_, _, a) = activation(spec), network()
    z = np.array([[-1.0, 0.0, 2.0, -0.5, 0.0]])
    s, gates = neurons(act, z, a)
    tensors = neurons(act, torch.from_numpy(z), torch.from_numpy(a))
    exact = torch.from_numpy(z)
    for found, tensor, expected in zip(
        (s, gates), tensors, (act(exact), act.derivative(exact) * torch.from_numpy(a)), strict=True
    ):
        # On the kink exactly; powers elsewhere are right to a few units in the last place, and not
        # the same ones in both libraries.
        rounding = 16 * np.finfo(np.float64).eps
        np.testing.assert_allclose(found, expected.numpy(), rtol=rounding, atol=0)
        np.testing.assert_allclose(found, tensor.numpy(), rtol=rounding, atol=0)


@pytest.mark.parametrize("spec", ACTIVATIONS)
def test_a_step_of_sam_is_the_gradient_uphill(spec):
    act, (batch, W, a) = activation(spec), network()
    radius, (X, y, _) = 0.3, batch

    def uphill(X, y):
        up_W, up_a = autograd(act, X, y, W, a)
        length = math.sqrt((up_W**2).sum() + (up_a**2).sum())
        return autograd(act, X, y, W + radius / length * up_W, a + radius / length * up_a)

    together = gradient(batch, uphill_together(act, batch, W, a, radius))
    one_by_one = gradient(batch, uphill_per_sample(act, batch, W, a, radius))
    singles = [uphill(X[i : i + 1], y[i : i + 1]) for i in range(len(y))]
    mean = [sum(parts) / len(y) for parts in zip(*singles, strict=True)]
    for found, expected in zip((*together, *one_by_one), (*uphill(X, y), *mean), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_sample_that_is_fitted_has_no_uphill():
    act, (batch, W, a) = ft.activation("relu"), network()
    fitted = batch._replace(y=np.maximum(batch.X @ W.T, 0) @ a)
    for uphill in (uphill_per_sample, uphill_together):
        step = gradient(fitted, uphill(act, fitted, W, a, 1.0))
        assert max(abs(part).max() for part in step) < 1e-14


# --- what they find ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return ft.make_multi_index(120, 6, ["relu"] * 2, random_state=0)


@pytest.fixture(scope="module")
def lazy(data):
    X, y, _ = data
    return ft.interpolate(
        X, y, "gradient_descent", width=40, init_scale=1.0, random_state=0, tol=1e-4
    )


@pytest.mark.parametrize("method", NOISY)
def test_noise_carries_an_interpolator_to_the_flattest_one(method, data, lazy):
    X, y, model = data
    assert lazy.flatness.ratio > 10
    assert model.relative_error(lazy.net) > 0.2
    flattest = ft.interpolate(X, y, width=40, random_state=0)
    result = ft.interpolate(
        X, y, method, width=40, start=lazy.net, random_state=0, tol=1e-6, max_iter=20_000
    )
    assert result.converged
    assert result.flatness.ratio < 1.05 * flattest.flatness.ratio
    assert model.relative_error(result.net, random_state=1) < 1e-2


def test_plain_sgd_stays_where_the_loss_is_zero(data, lazy):
    X, y, _ = data
    result = ft.interpolate(X, y, "sgd", width=40, start=lazy.net, random_state=0, tol=1e-4)
    assert result.converged
    assert torch.equal(result.net.weights, lazy.net.weights)


@pytest.mark.parametrize("method", NOISY)
def test_without_noise_they_do_not_drift(method, data, lazy):
    X, y, _ = data
    off = {"noise": 0} if method == "label_noise_sgd" else {"radius": 0}
    result = ft.interpolate(
        X, y, method, width=40, start=lazy.net, random_state=0, tol=1e-4, max_iter=2000, **off
    )
    assert result.flatness.ratio == pytest.approx(lazy.flatness.ratio, rel=0.02)


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("batch_size", [1, None])
def test_sam_with_any_batch_interpolates(per_sample, batch_size, data):
    X, y, _ = data
    result = ft.interpolate(
        X[:40], y[:40], "sam", width=40, random_state=0, tol=1e-6, max_iter=4000,
        per_sample=per_sample, batch_size=batch_size,
    )  # fmt: skip
    assert result.converged
    assert result.train_error <= 1e-6 * float(y[:40].square().mean())


@pytest.mark.parametrize("method", ["sgd", *NOISY])
@pytest.mark.parametrize("act", ["abs", "relu2"])
def test_other_activations(method, act):
    X, y, _ = ft.make_multi_index(60, 4, [act], random_state=0)
    result = ft.interpolate(
        X, y, method, width=20, activation=act, random_state=0, tol=1e-6, max_iter=5000
    )
    assert result.converged


# --- how they behave ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sgd", *NOISY])
def test_the_same_seed_gives_the_same_network(method, data):
    X, y, _ = data
    runs = [
        ft.interpolate(X, y, method, width=20, random_state=3, tol=1e-2, max_iter=400).net
        for _ in range(2)
    ]
    assert torch.equal(runs[0].weights, runs[1].weights)


@pytest.mark.parametrize("method", ["sgd", *NOISY])
def test_a_step_too_long_diverges_and_says_so(method, data):
    X, y, _ = data
    with pytest.warns(ConvergenceWarning, match="lower the learning rate"):
        result = ft.interpolate(X, y, method, width=20, random_state=0, learning_rate=10.0)
    assert result.status is ft.Status.DIVERGED
    assert torch.isfinite(result.net.weights).all()


@pytest.mark.parametrize("method", ["sgd", *NOISY])
def test_labels_that_contradict_each_other_are_reported(method, data):
    X, y, _ = data
    with pytest.warns(ConvergenceWarning, match="no input occurs twice"):
        result = ft.interpolate(
            torch.cat([X, X]), torch.cat([y, y + 1]), method, width=20, random_state=0,
            max_iter=500,
        )  # fmt: skip
    assert result.status is ft.Status.NOT_INTERPOLATING


@pytest.mark.parametrize("method", ["sgd", *NOISY])
def test_an_interruption_keeps_what_is_done(method, data):
    X, y, _ = data
    calls = []

    def report(entry, expected):
        calls.append(entry)
        if len(calls) == 3:
            raise KeyboardInterrupt

    problem = Problem(
        X, y, 20, ft.activation("relu"), np.random.default_rng(0), 2000, 1e-10, 1e-16, report
    )
    outcome = METHODS[method](problem)
    assert outcome.status is ft.Status.INTERRUPTED
    assert torch.isfinite(outcome.weights).all()
    assert len(outcome.history) >= 3


@pytest.mark.parametrize("method", ["sgd", "flattest", "gradient_descent"])
def test_the_callback_sees_the_network_of_each_line(method, data):
    X, y, _ = data
    seen = []
    result = ft.interpolate(
        X, y, method, width=40, random_state=0, tol=1e-4, max_iter=3000,
        callback=lambda entry, net: seen.append((entry, net)),
    )  # fmt: skip
    assert [entry for entry, _ in seen] == result.history[: len(seen)]
    assert len(result.history) - len(seen) <= 1
    for entry, net in seen[:: max(1, len(seen) // 5)]:
        flatness = ft.measure(net, X, y)
        assert flatness.loss == pytest.approx(entry.train_error, rel=1e-8, abs=1e-20)
        assert flatness.orbit_minimum == pytest.approx(entry.orbit_minimum, rel=1e-8)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ("a file", TypeError, "start must be a TwoLayerNet, not str"),
        (ft.TwoLayerNet([[1.0]], [1.0], "relu"), ValueError, "start must have 6 features"),
        (ft.TwoLayerNet(torch.ones(2, 6), [1.0, 1.0], "abs"), ValueError, "activation"),
        (ft.TwoLayerNet(torch.ones(9, 6), torch.ones(9), "relu"), ValueError, "more than width=5"),
    ],
)
def test_a_start_that_does_not_fit(start, error, message, data):
    X, y, _ = data
    with pytest.raises(error, match=message):
        ft.interpolate(X, y, "sam", width=5, start=start)
