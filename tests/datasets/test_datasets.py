"""Multi-index data: links, input laws, the model, and one clear sentence for bad input."""

import copy
import math
import pickle

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st
from numpy.polynomial import hermite_e

from flattest.datasets import MultiIndexModel, make_multi_index
from flattest.datasets.input_laws import InputLaw
from flattest.datasets.links import LINKS, Link, link
from flattest.two_layer.activations import activation

LAWS = ("gaussian", "uniform", "rademacher", "sphere", "student_t")
seeds = st.integers(0, 2**32 - 1)
fixed = settings(derandomize=True, deadline=None, max_examples=25)

# ------------------------------------------------------------------------------------- links

FORMULAS = {
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "abs": lambda z: np.where(z > 0, z, -z),
    "relu2": lambda z: np.where(z > 0, z**2, 0.0),
    "quadratic": lambda z: z**2,
    "cubic": lambda z: z**3,
    "linear": lambda z: z,
    "tanh": lambda z: (np.exp(2 * z) - 1) / (np.exp(2 * z) + 1),
    "sin": lambda z: np.exp(1j * z).imag,
    "hermite2": lambda z: hermite_e.hermeval(z, [0, 0, 1]) / math.sqrt(math.factorial(2)),
    "hermite3": lambda z: hermite_e.hermeval(z, [0, 0, 0, 1]) / math.sqrt(math.factorial(3)),
    "step": lambda z: np.where(z > 0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", LINKS)
def test_named_links_agree_with_their_formulas(name):
    z = np.concatenate([np.linspace(-4, 4, 41), [0.0, -0.0, 1e-12]])
    got = link(name)(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(got, FORMULAS[name](z), rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(link(f"-{name}")(torch.from_numpy(z)).numpy(), -got)


@given(
    case=st.sampled_from([("step", 0), ("relu", 1), ("abs", 1), ("linear", 1), ("relu2", 2),
                          ("quadratic", 2), ("cubic", 3)]),
    c=st.floats(1e-3, 1e3),
    z=st.floats(-1e3, 1e3),
)  # fmt: skip
@fixed
def test_homogeneous_links_are_homogeneous(case, c, z):
    name, degree = case
    z = torch.tensor([z], dtype=torch.float64)
    torch.testing.assert_close(link(name)(c * z), c**degree * link(name)(z), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (1, 3), (2, 2), (3, 3), (0, 2), (0, 3)])
def test_hermite_links_are_orthonormal_under_the_gaussian(one, other):
    nodes, weights = hermite_e.hermegauss(20)
    names = {0: lambda z: torch.ones_like(z), 1: "linear", 2: "hermite2", 3: "hermite3"}
    values = [link(names[degree])(torch.from_numpy(nodes)).numpy() for degree in (one, other)]
    inner = weights @ (values[0] * values[1]) / math.sqrt(2 * math.pi)
    assert inner == pytest.approx(float(one == other), abs=1e-12)


def test_coefficients_and_signs_multiply():
    assert [link(s).coefficient for s in ("-sin", (0.5, "relu"), (3, "-relu"))] == [-1, 0.5, -3]
    assert link((2, link((3, "abs")))).coefficient == 6
    assert (-link("relu")) == link("-relu")
    assert [str(link(s)) for s in ("relu", "-relu", (0.5, "relu"))] == ["relu", "-relu", "0.5*relu"]


@pytest.mark.parametrize(
    "function",
    [np.tanh, torch.tanh, lambda z: z.astype(np.float64).clip(-1, 1), lambda z: z > 0,
     lambda z: np.where(z > 0, z, 0.0), activation("relu2"), torch.nn.Softplus()],
    ids=["ufunc", "torch", "numpy only", "boolean", "returns an array", "homogeneous", "module"],
)  # fmt: skip
def test_callables_keep_shape_and_dtype(function):
    z = torch.linspace(-2, 2, 9, dtype=torch.float32)
    values = link(function)(z)
    assert values.dtype == z.dtype
    assert values.shape == z.shape


def test_a_numpy_link_never_drops_a_gradient_silently():
    z = torch.linspace(-2, 2, 9, requires_grad=True)
    with pytest.raises(TypeError, match="has no gradient"):
        link(np.tanh)(z)
    link(torch.tanh)(z).sum().backward()
    torch.testing.assert_close(z.grad, 1 - torch.tanh(z.detach()) ** 2)


# -------------------------------------------------------------------------------- input laws


@given(law=st.sampled_from(LAWS), d=st.integers(1, 6), seed=seeds)
@fixed
def test_every_law_has_mean_zero_and_unit_covariance(law, d, seed):
    n = 20_000
    nu = 12 if law == "student_t" else None
    X = InputLaw(law, d, degrees_of_freedom=nu).sample(n, seed)
    assert X.shape == (n, d)
    assert X.dtype == torch.float64
    assert X.mean(dim=0).abs().max() < 6 / math.sqrt(n)
    covariance = X.T @ X / n
    assert (covariance - torch.eye(d, dtype=torch.float64)).abs().max() < 12 / math.sqrt(n)


@pytest.mark.parametrize(
    ("law", "options", "kurtosis"),
    [
        ("gaussian", {}, 3),
        ("uniform", {}, 9 / 5),
        ("rademacher", {}, 1),
        ("sphere", {}, 3 * 4 / (4 + 2)),
        ("student_t", {"degrees_of_freedom": 12.0}, 3 * 10 / 8),
    ],
)
def test_fourth_moments_tell_the_laws_apart(law, options, kurtosis):
    X = InputLaw(law, 4, **options).sample(200_000, random_state=1)
    assert X.pow(4).mean().item() == pytest.approx(kurtosis, rel=0.03)


def test_supports():
    assert InputLaw("uniform", 3).sample(10_000, 0).abs().max() <= math.sqrt(3)
    assert InputLaw("rademacher", 3).sample(1000, 0).unique().tolist() == [-1, 1]
    radii = InputLaw("sphere", 7).sample(1000, 0).norm(dim=1)
    torch.testing.assert_close(radii, torch.full_like(radii, math.sqrt(7)))


@pytest.mark.parametrize("nu", [2.5, 5.0, 30.0])
def test_student_t_has_student_t_projections(nu):
    X = InputLaw("student_t", 3, degrees_of_freedom=nu).sample(20_000, random_state=2)
    projection = X @ torch.tensor([2 / 3, -2 / 3, 1 / 3], dtype=X.dtype)
    scaled = projection.numpy() * math.sqrt(nu / (nu - 2))
    assert scipy.stats.kstest(scaled, scipy.stats.t(nu).cdf).pvalue > 0.01


@given(law=st.sampled_from(LAWS), d=st.integers(1, 5), rank=st.integers(1, 5), seed=seeds)
@fixed
def test_a_covariance_is_attained_even_a_singular_one(law, d, rank, seed):
    factor = np.random.default_rng(seed).standard_normal((d, rank)) / math.sqrt(d * rank)
    sigma = factor @ factor.T
    nu = 12 if law == "student_t" else None
    X = InputLaw(law, d, sigma, nu).sample(20_000, seed).numpy()
    assert np.abs(X.T @ X / len(X) - sigma).max() < 0.1 * max(1, np.abs(sigma).max())
    assert np.linalg.matrix_rank(X, tol=1e-5 * len(X)) <= min(d, rank)


def test_a_callable_law_gets_the_generator():
    def laplace(n, d, rng):
        return rng.laplace(size=(n, d)).astype(np.float32)

    X, _, model = make_multi_index(50, 3, "relu", inputs=laplace, random_state=0)
    assert X.dtype == torch.float64
    assert model.inputs.name == "laplace"
    torch.testing.assert_close(model.sample(7, 5), InputLaw(laplace, 3).sample(7, 5))


# ------------------------------------------------------------------------- model and labels


@given(
    k=st.integers(1, 5),
    d=st.integers(5, 9),
    names=st.lists(st.sampled_from(sorted(LINKS)), min_size=5, max_size=5),
    coefficients=st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    seed=seeds,
)
@fixed
def test_labels_are_the_sum_of_the_links(k, d, names, coefficients, seed):
    links = list(zip(coefficients, names, strict=True))[:k]
    X, y, model = make_multi_index(30, d, links, random_state=seed)
    Z = X.numpy() @ model.directions.numpy().T
    expected = sum(c * FORMULAS[name](Z[:, r]) for r, (c, name) in enumerate(links))
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(model(X), y)
    np.testing.assert_array_equal(model(X.numpy()), y.numpy())
    assert model.coefficients.tolist() == coefficients[:k]


@given(k=st.integers(1, 6), extra=st.integers(0, 4), seed=seeds)
@fixed
def test_directions_are_orthonormal(k, extra, seed):
    U = make_multi_index(2, k + extra, ["relu"] * k, random_state=seed)[2].directions
    torch.testing.assert_close(U @ U.T, torch.eye(k, dtype=U.dtype), rtol=0, atol=1e-13)


def test_orthonormal_directions_are_uniform():
    first = [make_multi_index(1, 3, 2 * ["abs"], random_state=s)[2].directions for s in range(1000)]
    U = torch.stack(first)
    assert U.mean(dim=0).abs().max() < 0.08
    assert (U.square().mean(dim=0) - 1 / 3).abs().max() < 0.04


def test_given_directions_are_used_as_they_are():
    U = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]])  # more than d, not of unit length
    X, y, model = make_multi_index(9, 2, ["relu", "tanh", "-relu"], directions=U, random_state=0)
    np.testing.assert_array_equal(model.directions.numpy(), U)
    expected = (X @ torch.tensor([3.0, 4.0], dtype=X.dtype)).relu() - X.sum(dim=1).relu()
    torch.testing.assert_close(y, expected)
    U[:] = 0
    assert model.directions.any(), "the model must hold a copy"


@pytest.mark.parametrize("law", LAWS)
def test_same_seed_same_data(law):
    options = {"inputs": law, "noise": 0.3}
    one = make_multi_index(20, 4, random_state=3, **options)
    two = make_multi_index(20, 4, random_state=np.random.default_rng(3), **options)
    assert all(torch.equal(a, b) for a, b in zip(one[:2], two[:2], strict=True))
    assert torch.equal(one[2].directions, two[2].directions)
    other = make_multi_index(20, 4, random_state=4, **options)
    assert not torch.equal(one[1], other[1])


def test_a_generator_moves_on_and_no_global_seed_is_touched():
    rng = np.random.default_rng(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = make_multi_index(5, 4, random_state=rng)[0]
    assert not torch.equal(first, make_multi_index(5, 4, random_state=rng)[0])
    assert not torch.equal(make_multi_index(5, 4)[0], make_multi_index(5, 4)[0])
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


def test_random_streams_are_independent():
    X, y, model = make_multi_index(20, 4, random_state=3)
    X1, y1, model1 = make_multi_index(20, 4, ["sin"], noise=0.5, random_state=3)
    assert torch.equal(X, X1)
    assert not torch.equal(y, y1)
    assert torch.equal(make_multi_index(99, 4, random_state=3)[2].directions, model.directions)
    assert not torch.equal(model.sample(20, random_state=3), X), "test inputs = training inputs"
    assert model1.noise == 0.5


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_noise_has_the_stated_level(noise):
    X, y, model = make_multi_index(20_000, 5, noise=noise, random_state=0)
    e = (y - model(X)) / noise
    assert e.mean().item() == pytest.approx(0, abs=0.03)
    assert e.std().item() == pytest.approx(1, abs=0.02)
    clean = make_multi_index(20_000, 5, random_state=0)[1]
    assert torch.equal(clean, model(X))


def test_float32_is_the_rounded_float64():
    wide = make_multi_index(50, 6, ["relu", "-cubic"], noise=0.1, random_state=0)
    X, y, model = make_multi_index(
        50, 6, ["relu", "-cubic"], noise=0.1, random_state=0, dtype=torch.float32
    )
    assert {X.dtype, y.dtype, model.directions.dtype, model.sample(3).dtype} == {torch.float32}
    assert torch.equal(X, wide[0].float())
    torch.testing.assert_close(y, wide[1].float(), rtol=1e-5, atol=1e-5)
    assert model(X.numpy()).dtype == np.float64  # arrays are computed in float64
    assert model(X.double()).dtype == torch.float64


def test_the_model_is_differentiable_in_its_inputs():
    X, _, model = make_multi_index(6, 3, ["quadratic", "-sin"], random_state=0)
    X.requires_grad_()
    model(X).sum().backward()
    Z = X.detach() @ model.directions.T
    slopes = torch.stack([2 * Z[:, 0], -Z[:, 1].cos()], dim=1)
    torch.testing.assert_close(X.grad, slopes @ model.directions)


def test_relative_error():
    _, _, model = make_multi_index(5, 6, ["relu", "abs"], noise=1.0, random_state=0)
    assert model.relative_error(model, random_state=1) == 0
    assert model.relative_error(lambda X: model(X)[:, None].float(), random_state=1) < 1e-12
    mean = model(model.sample(1000, 1)).mean()
    constant = model.relative_error(lambda X: mean.expand(len(X)), 1000, random_state=1)
    assert constant == pytest.approx(1)
    assert model.relative_error(lambda X: 3 * model(X), 1000, random_state=1) > 4
    assert model.relative_error(lambda X: model(X.numpy()), 100) == 0
    linear = torch.nn.Linear(6, 1, dtype=torch.float64)
    assert model.relative_error(linear) > 0
    assert linear.weight.grad is None


def test_models_are_small_in_print_and_survive_pickling():
    links = ["relu", "-hermite3", (0.5, "step")]
    X, y, model = make_multi_index(5, 4, links, inputs="student_t", random_state=0)
    assert repr(model) == (
        "MultiIndexModel('relu' + '-hermite3' + '0.5*step', n_features=4, "
        "inputs='student_t', noise=0)"
    )
    assert repr(model.inputs) == "InputLaw('student_t', n_features=4, degrees_of_freedom=5)"
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(X), y)
        assert torch.equal(twin.sample(3, 1), model.sample(3, 1))
    with pytest.raises(AttributeError):
        model.noise = 1.0


def test_a_law_serves_again_for_another_model():
    law = InputLaw("uniform", 4, covariance=2 * np.eye(4))
    X, _, model = make_multi_index(4000, 4, "sin", inputs=law, random_state=0)
    assert model.inputs is law
    assert X.var().item() == pytest.approx(2, rel=0.05)
    assert MultiIndexModel(model.directions, ["relu"], inputs=law).inputs is law


# -------------------------------------------------------------------------------- bad input

BAD_ARGUMENTS = [
    ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
    ({"n_samples": -3}, ValueError, "n_samples must be at least 1"),
    ({"n_samples": 10.0}, TypeError, "n_samples must be an integer"),
    ({"n_samples": True}, TypeError, "n_samples must be an integer"),
    ({"n_features": 0}, ValueError, "n_features must be at least 1"),
    ({"n_features": "5"}, TypeError, "n_features must be an integer"),
    ({"links": []}, ValueError, "links is empty"),
    ({"links": None}, TypeError, "links must be a list"),
    ({"links": {"relu"}}, TypeError, "links must be a list"),
    ({"links": "gelu"}, ValueError, "links 'gelu' is unknown; choose one of relu"),
    ({"links": ["relu", "--relu"]}, ValueError, r"links\[1\] '--relu' is unknown"),
    ({"links": ["relu", 3]}, TypeError, r"links\[1\] must be a name"),
    ({"links": (0.5, "relu")}, TypeError, r"links\[0\] must be a name"),
    ({"links": [("relu", 0.5)]}, TypeError, "coefficient in links.0. must be a real number"),
    ({"links": [(1.0, "relu", 2)]}, TypeError, r"links\[0\] must be a \(coefficient, link\) pair"),
    ({"links": [(1.0, (2.0, "relu"))]}, TypeError, "pair"),
    ({"links": [(math.inf, "relu")]}, ValueError, "must be finite, not inf"),
    ({"links": [lambda z: z.sum()]}, ValueError, "must act elementwise, but returned shape"),
    ({"links": [torch.log]}, ValueError, "Link 'log' returned NaN or infinity at z = -"),
    ({"links": [math.sin]}, TypeError, "must accept a tensor or a NumPy array"),
    ({"links": [lambda z: 1.0]}, TypeError, "must return a tensor or an array"),
    ({"links": [lambda z: z * 1j]}, TypeError, "real numbers, not torch.complex128"),
    ({"links": ["relu"] * 6}, ValueError, "only 5 orthonormal directions"),
    ({"directions": "random"}, ValueError, "directions must be 'orthonormal' or an array"),
    ({"directions": np.eye(5)}, ValueError, r"directions must have shape \(2, 5\), but has"),
    ({"directions": np.ones(5)}, ValueError, r"directions must have shape \(2, 5\), but has"),
    ({"directions": [[1.0] * 5]}, ValueError, r"directions must have shape \(2, 5\), but has"),
    ({"directions": [[1.0] * 5, [1.0] * 4]}, ValueError, "directions must be rectangular"),
    ({"directions": None}, TypeError, "directions must be a tensor or an array"),
    ({"directions": np.full((2, 5), np.nan)}, ValueError, "directions contains NaN"),
    ({"directions": torch.ones(2, 5, dtype=torch.int64)}, TypeError, "directions must hold float"),
    ({"noise": -0.1}, ValueError, "noise must be finite and at least 0"),
    ({"noise": math.nan}, ValueError, "noise must be finite and at least 0"),
    ({"noise": "low"}, TypeError, "noise must be a real number"),
    ({"inputs": "cauchy"}, ValueError, "inputs 'cauchy' is unknown; choose one of gaussian"),
    ({"inputs": None}, TypeError, "inputs must be a name or a callable"),
    ({"inputs": lambda n, d, rng: rng.random(n)}, ValueError, r"must have shape \(10, 5\)"),
    ({"inputs": lambda n, d, rng: np.full((n, d), np.inf)}, ValueError, "NaN or infinity"),
    ({"inputs": lambda n, d, rng: None}, TypeError, "must be a tensor or an array"),
    ({"inputs": InputLaw("sphere", 4)}, ValueError, "inputs has 4 features, but n_features is 5"),
    ({"inputs": InputLaw("sphere", 5), "covariance": np.eye(5)}, ValueError, "beside an InputLaw"),
    ({"covariance": np.eye(4)}, ValueError, r"covariance must have shape \(5, 5\)"),
    ({"covariance": np.triu(np.ones((5, 5)))}, ValueError, "covariance must be symmetric"),
    ({"covariance": -np.eye(5)}, ValueError, "covariance must be positive semi-definite"),
    ({"covariance": np.zeros((5, 5))}, ValueError, "covariance must be positive semi-definite"),
    ({"covariance": np.full((5, 5), np.inf)}, ValueError, "covariance contains NaN"),
    ({"covariance": "full"}, TypeError, "covariance must be a tensor or an array"),
    ({"covariance": np.eye(5), "inputs": lambda n, d, rng: rng.random((n, d))}, ValueError,
     "cannot be combined with a callable"),
    ({"degrees_of_freedom": 5}, ValueError, "degrees_of_freedom belongs to inputs='student_t'"),
    ({"inputs": "student_t", "degrees_of_freedom": 2}, ValueError, "greater than 2"),
    ({"inputs": "student_t", "degrees_of_freedom": "5"}, TypeError, "must be a real number"),
    ({"random_state": -1}, ValueError, "random_state must not be negative"),
    ({"random_state": 1.5}, TypeError, "random_state must be an integer"),
    ({"random_state": np.random.RandomState(0)}, TypeError, "random_state must be"),
    ({"dtype": torch.float16}, TypeError, "dtype must be torch.float32 or torch.float64"),
    ({"dtype": "float64"}, TypeError, "dtype must be torch.float32 or torch.float64"),
    ({"device": "abacus"}, ValueError, "device 'abacus' is not available"),
    ({"device": "cuda:99"}, ValueError, "device 'cuda:99' is not available"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments_give_one_sentence(arguments, error, message):
    valid = {"n_samples": 10, "n_features": 5, "links": ["relu", "abs"], "random_state": 0}
    with pytest.raises(error, match=message) as caught:
        make_multi_index(**{**valid, **arguments})
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(torch.ones(2, 5)), ValueError, "X has 5 features, but the model has 2"),
        (lambda m: m([1.0, 2.0]), ValueError, "X must be two-dimensional"),
        (lambda m: m(torch.ones(2, 2, dtype=torch.int32)), TypeError, "X must hold floating"),
        (lambda m: m([[math.nan, 0.0]]), ValueError, "X contains NaN or infinity in row 0"),
        (lambda m: m([["a", "b"]]), TypeError, "X must hold real numbers"),
        (lambda m: m(torch.ones(0, 2)), ValueError, "X is empty"),
        (lambda m: m.sample(0), ValueError, "n_samples must be at least 1"),
        (lambda m: m.sample(3, "seed"), TypeError, "random_state must be an integer"),
        (lambda m: m.relative_error(3), TypeError, "predict must be callable, not int"),
        (lambda m: m.relative_error(m, 1), ValueError, "n_samples must be at least 2"),
        (lambda m: m.relative_error(lambda X: X), ValueError, "one number per row"),
        (lambda m: m.relative_error(lambda X: X[:1, 0]), ValueError, "has 1 values"),
        (lambda m: m.relative_error(lambda X: X[:, 0] / 0), ValueError, "NaN or infinity"),
        (lambda m: m.relative_error(lambda X: None), TypeError, "must be a tensor or an array"),
        (lambda m: m.relative_error(lambda X: X.numpy()[:, 0] * np.inf), ValueError, "NaN or inf"),
        (lambda m: MultiIndexModel(np.ones((2, 2)), "relu"), ValueError, "one row per link"),
        (lambda m: MultiIndexModel(torch.ones(1, 2).half(), "relu"), TypeError, "float32 or"),
        (lambda m: MultiIndexModel([[1.0]], "relu", -1), ValueError, "noise must be"),
        (lambda m: MultiIndexModel([[0.0]], "relu").relative_error(m), ValueError, "constant"),
        (lambda m: Link(3, torch.relu), TypeError, "name must be a string"),
        (lambda m: Link("", torch.relu), ValueError, "name must not be empty"),
        (lambda m: Link("relu", "relu"), TypeError, "function must be callable"),
        (lambda m: Link("relu", torch.relu, "2"), TypeError, "coefficient must be a real number"),
    ],
)  # fmt: skip
def test_bad_calls_of_the_model_give_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(MultiIndexModel([[1.0, 0.0]], "linear"))
