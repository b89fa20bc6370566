"""TwoLayerNet: prediction, files, bias, rescaling; and the surgery that keeps the function."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from oracles import Problem, definition, problems, random_problem, same, shapes, term_size
from safetensors.torch import save_file

import flattest as ft


def assert_same_function(
    one: ft.TwoLayerNet, two: ft.TwoLayerNet, X: torch.Tensor, tolerance: float = 1e-12
) -> None:
    """Compare outputs, relative to the size of the terms that each output sums."""
    with torch.no_grad():
        assert (one(X) - two(X)).abs().max() <= tolerance * term_size(one, X)


# --- the network itself ---------------------------------------------------------------------


@given(problem=problems())
def test_prediction_follows_the_definition(problem: Problem) -> None:
    net, X = problem.net, problem.X
    s = definition(net.activation)
    expected = [
        sum(a * s(w @ x) for w, a in zip(net.weights, net.coefficients, strict=True)) for x in X
    ]
    torch.testing.assert_close(net(X), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_is_an_ordinary_module() -> None:
    net = random_problem(np.random.default_rng(0)).net
    assert [name for name, _ in net.named_parameters()] == ["weights", "coefficients"]
    net(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
    assert net.weights.grad is not None
    assert net.float().weights.dtype == torch.float32
    assert repr(net) == "TwoLayerNet(width=4, n_features=3, activation=Homogeneous('relu'))"
    assert (net.width, net.n_features, net.degree) == (4, 3, 1)


def test_given_tensors_are_copied_and_keep_their_dtype() -> None:
    weights, coefficients = torch.ones(2, 3), torch.ones(2)
    net = ft.TwoLayerNet(weights, coefficients, "relu")
    weights[0, 0], coefficients[0] = 5, 5
    assert net.weights.max() == net.coefficients.max() == 1
    assert net.weights.dtype == net.coefficients.dtype == torch.float32
    assert ft.TwoLayerNet([[1, 2]], [3], "relu").weights.dtype == torch.float64
    assert ft.TwoLayerNet(weights, [1, 2], "relu").coefficients.dtype == torch.float32
    with torch.no_grad():
        twin = ft.TwoLayerNet(net.weights, net.coefficients, "relu")
        twin.weights.zero_()
    assert net.weights.max() == 1


# --- files ------------------------------------------------------------------------------------


@given(problem=problems(), single=st.booleans())
def test_save_and_load_to_the_last_bit(problem: Problem, single: bool, tmp_path_factory) -> None:
    net = problem.net.float() if single else problem.net
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    net.save(path)
    loaded = ft.TwoLayerNet.load(path)
    assert loaded.activation == net.activation
    assert torch.equal(loaded.weights, net.weights)
    assert torch.equal(loaded.coefficients, net.coefficients)
    assert loaded.weights.dtype == net.weights.dtype
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "net.safetensors"
    ft.TwoLayerNet([[1.0]], [1.0], "relu").save(path)
    before = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no space left"):
        ft.TwoLayerNet([[2.0]], [2.0], "relu").save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def _metadata(**changes: str) -> dict[str, str]:
    activation = json.dumps({"degree": 1, "positive": 1, "negative": 0})
    return {"format": "flattest.TwoLayerNet/1", "activation": activation} | changes


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"weights": torch.ones(2, 3), "coefficients": torch.ones(2)}, None),
        ({"weights": torch.ones(2, 3), "coefficients": torch.ones(2)}, _metadata(format="x")),
        ({"weights": torch.ones(2, 3), "coefficients": torch.ones(3)}, _metadata()),
        ({"weights": torch.ones(2, 3)}, _metadata()),
        ({"weights": torch.ones(2, 3).int(), "coefficients": torch.ones(2)}, _metadata()),
        ({"weights": torch.ones(2, 3) / 0, "coefficients": torch.ones(2)}, _metadata()),
        (
            {"weights": torch.ones(2, 3), "coefficients": torch.ones(2)},
            _metadata(activation="{"),
        ),
        (
            {"weights": torch.ones(2, 3), "coefficients": torch.ones(2)},
            _metadata(activation='{"degree": 1}'),
        ),
        (
            {"weights": torch.ones(2, 3), "coefficients": torch.ones(2)},
            _metadata(activation='{"degree": 0.1, "positive": 1, "negative": 0}'),
        ),
    ],
)
def test_other_safetensors_files_are_refused(tensors, metadata, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="is not a readable flattest model file"):
        ft.TwoLayerNet.load(path)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    ft.TwoLayerNet([[1.0, 2.0]], [1.0], "relu").save(path)
    whole = path.read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a readable flattest model file"):
            ft.TwoLayerNet.load(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is not a readable flattest model file"):
        ft.TwoLayerNet.load(path)
    with pytest.raises(ValueError, match="is not a readable flattest model file"):
        ft.TwoLayerNet.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model file"):
        ft.TwoLayerNet.load(tmp_path / "missing.safetensors")


# --- bias -------------------------------------------------------------------------------------


@given(problem=problems(), seed=st.integers(0, 1000))
def test_bias_in_and_out(problem: Problem, seed: int) -> None:
    biases = torch.from_numpy(np.random.default_rng(seed).normal(size=problem.net.width))
    weights, coefficients = problem.net.weights.detach(), problem.net.coefficients.detach()
    net = ft.TwoLayerNet.with_bias(weights, biases, coefficients, problem.net.activation)
    z = problem.X @ weights.T + biases
    torch.testing.assert_close(
        net(ft.append_bias_coordinate(problem.X)),
        definition(net.activation)(z) @ coefficients,
        rtol=1e-11,
        atol=1e-11,
    )
    read_weights, read_biases = net.split_bias()
    assert torch.equal(read_weights, weights)
    assert torch.equal(read_biases, biases)


def test_a_single_feature_leaves_no_bias_to_split() -> None:
    with pytest.raises(ValueError, match="one feature only"):
        ft.TwoLayerNet([[1.0]], [1.0], "relu").split_bias()


# --- rescale ----------------------------------------------------------------------------------


@given(problem=problems(), seed=st.integers(0, 1000))
def test_rescaling_keeps_the_function(problem: Problem, seed: int) -> None:
    scales = np.exp(np.random.default_rng(seed).uniform(-5, 5, problem.net.width))
    assert_same_function(problem.net, ft.rescale(problem.net, scales), problem.X)
    assert_same_function(problem.net, ft.rescale(problem.net, 7), problem.X)


def test_rescaling_out_of_range_is_refused() -> None:
    net = ft.TwoLayerNet(torch.ones(1, 1), torch.ones(1), "relu")
    for scale in (1e40, 1e-40, 1e50):
        with pytest.raises(ValueError, match="out of the range"):
            ft.rescale(net, scale)
    for scale in (0.0, -1.0):
        with pytest.raises(ValueError, match="must be positive"):
            ft.rescale(net, scale)
    with pytest.raises(ValueError, match="one number or 1 numbers"):
        ft.rescale(net, [1.0, 2.0])


# --- merge, split, prune ----------------------------------------------------------------------


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_merging_undoes_splitting(problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = ft.prune(problem.net)
    copies = int(rng.integers(1, 5))
    more = ft.split(net, int(rng.integers(net.width)), copies)
    more = ft.rescale(more, np.exp(rng.uniform(-2, 2, more.width)))
    assert more.width == net.width + copies - 1
    assert_same_function(net, more, problem.X)
    merged = ft.merge(more)
    assert merged.width <= net.width
    assert_same_function(net, merged, problem.X, tolerance=1e-9)


@pytest.mark.parametrize("degree", [1, 1.5, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_opposite_rays_merge_for_even_and_odd_activations(degree: float, sign: int) -> None:
    net = ft.TwoLayerNet(
        [[1.0, 2.0], [-2.0, -4.0], [0.0, 1.0]],
        [1.0, 0.3, 1.0],
        ft.Homogeneous(degree, 2, 2 * sign),
    )
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2)))
    merged = ft.merge(net)
    assert merged.width == 2
    assert_same_function(net, merged, X)
    one_sided = ft.TwoLayerNet(net.weights, net.coefficients, ft.Homogeneous(degree, 2, sign))
    assert ft.merge(one_sided).width == 3


def test_merging_keeps_the_trace_of_balanced_relu_neurons() -> None:
    problem = random_problem(np.random.default_rng(1), m=3, interpolating=True)
    net = ft.balance(ft.split(problem.net, 1, 4), problem.X)
    merged = ft.merge(net)
    assert merged.width == 3
    before, after = (ft.measure(f, problem.X, problem.y) for f in (net, merged))
    assert same(before.trace, after.trace, 1e-12)
    assert same(after.trace, after.orbit_minimum, 1e-12)


def test_merging_neurons_that_cancel() -> None:
    net = ft.TwoLayerNet([[1.0], [2.0], [-1.0]], [2.0, -1.0, 1.0], "relu")
    assert ft.merge(net).weights.tolist() == [[-1.0]]
    nothing = ft.merge(ft.TwoLayerNet([[1.0], [2.0]], [2.0, -1.0], "relu"))
    assert nothing.width == 1
    assert nothing.coefficients.tolist() == [0]


def test_merging_to_a_tolerance() -> None:
    net = ft.TwoLayerNet([[1.0, 0.0], [1.0, 1e-4]], [1.0, 1.0], "relu")
    assert ft.merge(net).width == 2
    merged = ft.merge(net, tol=1e-3)
    assert merged.width == 1
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2)))
    assert_same_function(net, merged, X, tolerance=1e-3)


@given(problem=problems(), tol=st.sampled_from([0.0, 1e-12]))
def test_pruning_keeps_the_function_on_the_data(problem: Problem, tol: float) -> None:
    everywhere = ft.prune(problem.net, tol=tol)
    fresh = torch.from_numpy(np.random.default_rng(0).normal(size=(9, problem.X.shape[1])))
    assert_same_function(problem.net, everywhere, fresh, tolerance=1e-11)
    on_data = ft.prune(problem.net, problem.X, tol=tol)
    assert on_data.width <= everywhere.width
    assert_same_function(problem.net, on_data, problem.X, tolerance=1e-11)
    before = ft.measure(problem.net, problem.X, problem.y)
    after = ft.measure(on_data, problem.X, problem.y)
    assert same(before.orbit_minimum, after.orbit_minimum, 1e-10)


def test_pruning_everything_leaves_one_zero_neuron() -> None:
    net = ft.TwoLayerNet([[-1.0], [-2.0]], [1.0, 1.0], "relu")
    pruned = ft.prune(net, [[1.0], [2.0]])
    assert pruned.width == 1
    assert pruned.coefficients.tolist() == [0]


@given(shape=shapes())
def test_surgery_keeps_dtype_and_leaves_the_original(shape: ft.Homogeneous) -> None:
    net = ft.TwoLayerNet(torch.eye(3), torch.ones(3), shape)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for other in (ft.merge(net), ft.split(net, 2, 2), ft.prune(net), ft.rescale(net, 2.0)):
        assert other.weights.dtype == other.coefficients.dtype == torch.float32
        other.weights.data.fill_(9)
        other.coefficients.data.fill_(9)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_splitting_needs_a_neuron_that_exists() -> None:
    with pytest.raises(ValueError, match="less than the width 1"):
        ft.split(ft.TwoLayerNet([[1.0]], [1.0], "relu"), 1, 2)


def test_prune_keeps_neurons_whose_size_overflows():
    huge = ft.TwoLayerNet(torch.tensor([[1e30], [1.0]]), torch.tensor([1e30, 1.0]), "relu")
    pruned = ft.prune(huge)
    assert pruned.width == 2
    assert torch.equal(pruned.coefficients, huge.coefficients)
    with pytest.raises(ValueError, match="leaves the range of float64"):
        ft.merge(ft.TwoLayerNet([[1e120]], [1.0], "relu3"))
