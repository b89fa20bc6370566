"""TwoLayerNet: prediction, files, bias."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from oracles import Problem, definition, problems, random_problem
from safetensors.torch import save_file

import flattest as ft

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
