"""Homogeneous: the definition, its derivatives, its convention at 0, and its names."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from oracles import DEGREES, SLOPES, definition, shapes

import flattest as ft

NAMES = ["relu", "leaky_relu", "abs", "linear", "relu2", "quadratic", "relu3", "cubic"]
EVERY_SHAPE = [ft.Homogeneous(p, *slopes) for p in DEGREES for slopes in SLOPES]
Z = torch.tensor([-2.5, -1.0, -1e-3, 1e-3, 1.0, 2.5], dtype=torch.float64)


@pytest.mark.parametrize("shape", EVERY_SHAPE, ids=str)
def test_values_follow_the_definition(shape: ft.Homogeneous) -> None:
    torch.testing.assert_close(shape(Z), definition(shape)(Z), rtol=1e-14, atol=0)
    assert shape(torch.zeros(1)).item() == 0


@pytest.mark.parametrize("shape", EVERY_SHAPE, ids=str)
def test_derivatives_agree_with_autograd_even_at_zero(shape: ft.Homogeneous) -> None:
    z = torch.cat([Z, torch.zeros(1, dtype=torch.float64)]).requires_grad_()
    (first,) = torch.autograd.grad(shape(z).sum(), z, create_graph=True)
    torch.testing.assert_close(shape.derivative(z), first, rtol=1e-13, atol=0)
    second = torch.zeros_like(z)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), z, materialize_grads=True)
    torch.testing.assert_close(shape.second_derivative(z), second, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("shape", "first", "second"),
    [
        ("relu", 0, 0),
        ("leaky_relu", 0.01, 0),
        ("abs", 0, 0),
        ("linear", 1, 0),
        ("relu2", 0, 0),
        ("quadratic", 0, 2),
        ("relu3", 0, 0),
        ("cubic", 0, 0),
        (ft.Homogeneous(1, -2, 3), -2, 0),
        (ft.Homogeneous(1, 2, 3), 0, 0),
        (ft.Homogeneous(2, -3, -1), 0, -2),
        (ft.Homogeneous(2, 3, -1), 0, 0),
        (ft.Homogeneous(1.5, 1, 1), 0, 0),
    ],
)
def test_at_zero_the_one_sided_value_nearest_zero_counts(
    shape: str | ft.Homogeneous, first: float, second: float
) -> None:
    shape, zero = ft.activation(shape), torch.zeros(1, dtype=torch.float64)
    assert shape.derivative(zero).item() == first
    assert shape.second_derivative(zero).item() == second


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("relu", torch.relu),
        ("leaky_relu", torch.nn.functional.leaky_relu),
        ("abs", torch.abs),
        ("linear", lambda z: z),
        ("quadratic", torch.square),
        ("cubic", lambda z: z * z * z),
    ],
)
def test_named_activations_equal_those_of_torch(name: str, reference) -> None:
    for dtype in (torch.float32, torch.float64):
        z = torch.cat([Z, torch.zeros(1)]).to(dtype).requires_grad_()
        ours, theirs = ft.activation(name)(z), reference(z)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(
            torch.autograd.grad(ours.sum(), z), torch.autograd.grad(theirs.sum(), z)
        )


@given(shape=shapes(), c=st.floats(1e-3, 1e3))
def test_homogeneity(shape: ft.Homogeneous, c: float) -> None:
    torch.testing.assert_close(shape(c * Z), c**shape.degree * shape(Z), rtol=1e-12, atol=0)
    euler = shape.degree * shape(Z)
    torch.testing.assert_close(Z * shape.derivative(Z), euler, rtol=1e-13, atol=0)


@given(shape=shapes())
def test_round_trips_equality_and_hash(shape: ft.Homogeneous) -> None:
    assert ft.Homogeneous.from_dict(shape.to_dict()) == shape
    assert pickle.loads(pickle.dumps(shape)) == shape
    assert len({shape, ft.Homogeneous(**shape.to_dict())}) == 1
    assert ft.activation(shape) is shape


@pytest.mark.parametrize("name", NAMES)
def test_repr_names_the_known_ones(name: str) -> None:
    assert repr(ft.activation(name)) == f"Homogeneous({name!r})"


def test_repr_of_others_and_smallest_slope() -> None:
    shape = ft.Homogeneous(1.5, -2, 0.5)
    assert repr(shape) == "Homogeneous(1.5, -2, 0.5)"
    assert shape.smallest_slope == 0.5
    assert ft.activation("relu3").smallest_slope == 1


def test_parity() -> None:
    for shape in EVERY_SHAPE:
        if shape.parity:
            torch.testing.assert_close(shape(-Z), shape.parity * shape(Z))
        else:
            assert not torch.allclose(shape(-Z).abs(), shape(Z).abs())


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        ft.activation("relu").degree = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.5, 1, 0), "at least 1"), ((1, 0, 0), "both be 0"), ((1, np.inf, 0), "finite")],
)
def test_impossible_numbers_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.Homogeneous(*arguments)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'tanh'.*relu, leaky_relu, abs, linear, relu2"):
        ft.activation("tanh")
