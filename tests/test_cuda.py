"""A CUDA tensor in, CUDA work out, and the same results as on the CPU."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES

import flattest as ft
from flattest.interpolators import METHODS
from flattest.modules.outputs import select

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ACTIVATIONS = ["relu", "abs", "leaky_relu", "relu2", "quadratic", "cubic"]


def _network(activation: str, dtype: torch.dtype = torch.float64) -> ft.TwoLayerNet:
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(30, 7, generator=rng, dtype=torch.float64)
    coefficients = torch.randn(30, generator=rng, dtype=torch.float64)
    weights[3], coefficients[5] = 0, 0
    return ft.TwoLayerNet(weights.to(dtype), coefficients.to(dtype), activation)


def _data(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    X, y, _ = ft.make_multi_index(n, 7, ["relu", "-abs"], noise=0.1, random_state=0)
    return X, y


def test_data_do_not_depend_on_the_device():
    links = ["relu", np.tanh]
    host = ft.make_multi_index(50, 6, links, noise=0.1, random_state=0)
    X, y, model = ft.make_multi_index(50, 6, links, noise=0.1, random_state=0, device="cuda")
    assert torch.equal(X.cpu(), host[0])
    assert torch.equal(y.cpu(), host[1])
    assert model(X).device == model.sample(3).device == X.device
    torch.testing.assert_close(model(X).cpu(), host[2](host[0]))
    assert model.relative_error(model, 100) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_measures_do_not_depend_on_the_device(activation, dtype):
    X, y = (values.to(dtype) for values in _data())
    net = _network(activation, dtype)
    here, there = ft.measure(net, X, y), ft.measure(net.cuda(), X.cuda(), y.cuda(), chunk_size=64)
    assert there.device.startswith("cuda")
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    for field in fields(here):
        wanted, found = getattr(here, field.name), getattr(there, field.name)
        if isinstance(wanted, float):
            assert found == pytest.approx(wanted, rel=tolerance), field.name
    for wanted, found in zip(here.per_neuron, there.per_neuron, strict=True):
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), wanted, rtol=tolerance, atol=tolerance)
    bound = ft.lower_bound(X.cuda(), y.cuda(), width=30, activation=activation)
    assert bound == pytest.approx(ft.lower_bound(X, y, width=30, activation=activation), rel=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_symmetries_stay_on_the_device(activation):
    X, net = _data()[0].cuda(), _network(activation).cuda()
    changed = [
        ft.balance(net, X),
        ft.sharpen(net, 100.0),
        ft.rescale(net, torch.full((30,), 2.0, dtype=torch.float64, device="cuda")),
        ft.split(net, 0, 3),
        ft.merge(ft.split(net, 0, 3)),
        ft.prune(net, X),
    ]
    for other in changed:
        assert other.weights.is_cuda
        torch.testing.assert_close(other(X), net(X))
    # With its own outputs as targets there is no residual part, which balancing leaves alone.
    assert ft.measure(changed[0], X, net(X)).trace == pytest.approx(
        ft.measure(net, X, net(X)).orbit_minimum, rel=1e-12
    )


def test_a_network_is_stored_from_a_gpu(tmp_path):
    net = _network("relu").cuda()
    net.save(tmp_path / "net.safetensors")
    stored = ft.TwoLayerNet.load(tmp_path / "net.safetensors")
    assert torch.equal(stored.weights, net.weights.cpu())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", METHODS)
def test_interpolators_stay_on_the_device(method):
    X, y, _ = ft.make_multi_index(60, 4, ["relu"], random_state=0)
    common = {"width": 80, "random_state": 0, "tol": 1e-4, "max_iter": 1000}
    if method == "poisoned":
        common["n_poison"] = 10  # as many as samples would be too many for this width
    here = ft.interpolate(X, y, method, **common)
    there = ft.interpolate(X.cuda(), y.cuda(), method, **common)
    assert there.net.weights.is_cuda
    # Rounding parts the paths; they end where the method ends. Random labels have many solutions.
    random_labels = method == "poisoned"
    assert there.status is here.status or random_labels
    assert there.converged or random_labels
    assert there.train_error < 1e-3 * float(y.square().mean())
    ending = here.flatness.orbit_minimum
    assert there.flatness.orbit_minimum == pytest.approx(ending, rel=0.5 if random_labels else 0.2)


def test_flattest_fits_to_rounding():
    X, y, _ = ft.make_multi_index(60, 4, ["relu"], random_state=0, device="cuda")
    result = ft.interpolate(X, y, width=20, random_state=0)
    assert result.net.weights.is_cuda
    assert result.train_error < 1e-20


def _rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((150, 6))
    return X, np.abs(X[:, 0] - 2 * X[:, 1]) + 0.1 * rng.standard_normal(150)


@pytest.mark.filterwarnings("ignore:1 of 150 targets")
@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_regressor_finds_the_same(logarithmic):
    X, y = _rows(0)
    y = np.exp(y) if logarithmic else y
    y[7] += 100 * y.std()
    weight = np.random.default_rng(1).uniform(0.5, 2, size=150)
    here, there = (
        ft.MultiIndexRegressor(device=device, random_state=0).fit(X, y, sample_weight=weight)
        for device in ("cpu", "cuda")
    )
    assert there.n_directions_ == here.n_directions_ == 1
    np.testing.assert_array_equal(there.outliers_, here.outliers_)
    assert there.log_share_ == pytest.approx(here.log_share_, abs=1e-3)
    fresh = _rows(2)[0]
    units = np.log if logarithmic else np.asarray
    difference = units(there.predict(fresh)) - units(here.predict(fresh))
    assert np.square(difference).mean() ** 0.5 < 0.03
    assert not there.network_.weights.is_cuda  # what predicts is on the CPU


def test_the_regressor_finds_the_same_without_noise():
    X = np.random.default_rng(0).standard_normal((150, 6))
    y = np.abs(X[:, 0] - 2 * X[:, 1])
    common = {"random_state": 0, "width": 40, "cv": 3, "strengths": [3e-3, 3e-2]}
    here, there = (
        ft.MultiIndexRegressor(device=device, **common).fit(X, y) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there.predict(X), here.predict(X), atol=1e-2)


def test_the_regressor_network_finds_the_same():
    X, y = _rows(0)
    here, there = (
        ft.MultiIndexRegressor(link="network", device=device, random_state=0, width=40).fit(X, y)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there.predict(X), here.predict(X), atol=0.05)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_modules(name):
    module, inputs = ARCHITECTURES[name](4)
    logits = select(module(*(x.clone() for x in inputs)), None)
    y = torch.zeros_like(logits)
    host = ft.measure(module, inputs, y)
    device = ft.measure(module.cuda(), tuple(x.cuda() for x in inputs), y.cuda())
    assert device.device.startswith("cuda")
    scale = max(layer.gauss_newton for layer in host.layers)
    for one, other in zip(host.layers, device.layers, strict=True):
        assert other.gauss_newton == pytest.approx(one.gauss_newton, rel=1e-9, abs=1e-20 * scale)


def test_drawn_columns_of_modules():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(5, 200), torch.nn.Tanh()).cuda()
        X, y = torch.randn(8, 5).cuda(), torch.randint(0, 200, (8,)).cuda()
    exact = ft.measure(module, X, y, loss="cross_entropy", mode="exact")
    drawn = ft.measure(module, X, y, loss="cross_entropy", rtol=0.05, random_state=0)
    error = drawn.standard_error["gauss_newton"]
    assert abs(drawn.gauss_newton - exact.gauss_newton) <= 6 * error


@pytest.mark.parametrize("name", ["LeNet", "residual block in place", "transformer encoder layer"])
@pytest.mark.parametrize("batch_norm", ["keep", "fold", "affine"])
def test_symmetries_do_not_depend_on_the_device(name, batch_norm):
    model, inputs = ARCHITECTURES[name](3)
    here = ft.symmetries(model, inputs, batch_norm=batch_norm)
    there = ft.symmetries(model.cuda(), [x.cuda() for x in inputs], batch_norm=batch_norm)
    assert there.n_scales == here.n_scales
    assert len(there.groups) == len(here.groups)
    z = np.random.default_rng(0).standard_normal(there.n_scales)
    changed = there.transformed(z=z)
    assert all(parameter.is_cuda for parameter in changed.parameters())
    x = [value.cuda() for value in inputs]
    torch.testing.assert_close(changed(*x), there.module(*x), rtol=1e-10, atol=1e-10)


def test_watching_does_not_change_a_training_on_the_device():
    from flattest.integrations import FlatnessMonitor

    def trained(watched):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(7, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
        ).cuda()
        X, labels = torch.randn(40, 7), torch.randint(0, 3, (40,))
        monitor = FlatnessMonitor(X[:8], labels[:8], loss="cross_entropy")  # moved to the device
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(5):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(X.cuda()), labels.cuda()).backward()
            optimiser.step()
            if watched:
                assert monitor.measure(net).device.startswith("cuda")
        return [p.tolist() for p in net.parameters()]

    with torch.random.fork_rng():
        assert trained(True) == trained(False)
