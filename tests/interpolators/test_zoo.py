"""The zoo: each interpolator against what defines it."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from zoo import ZOO, fit, gaussian, with_bias

import flattest as ft
from flattest.interpolators import METHODS
from flattest.interpolators.parameter_norm import squared_norm

# --- every method ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_it_interpolates_and_says_so(name):
    X, y = gaussian()
    result = fit(name, X, y)
    assert result.status in (ft.Status.CONVERGED, ft.Status.NOT_FLATTEST)
    assert float((result.net(X).detach() - y).square().mean()) <= 1e-10
    assert result.net.width <= 60
    assert result.history[-1].train_error <= 1e-10


@pytest.mark.parametrize("name", ZOO)
def test_the_seed_decides(name):
    X, y = gaussian()
    one, again, other = (fit(name, X, y, random_state=seed).net for seed in (1, 1, 2))
    assert torch.equal(one.weights, again.weights)
    assert torch.equal(one.coefficients, again.coefficients)
    assert one.weights.shape != other.weights.shape or not torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("name", ["random_features", "linearised", "fan"])
def test_the_function_does_not_depend_on_the_order_of_the_rows(name):
    X, y = gaussian()
    order = torch.from_numpy(np.random.default_rng(3).permutation(len(X)))
    fresh, _ = gaussian(seed=9)
    with torch.no_grad():
        before, after = (fit(name, X[o], y[o]).net(fresh) for o in (slice(None), order))
    assert float((before - after).norm() / before.norm()) < 1e-6


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("units", [1e-6, 1e6])
def test_units_of_the_data_do_not_matter(name, units):
    X, y = gaussian()
    before, after = fit(name, X, y), fit(name, units * X, y / units)
    assert after.converged == before.converged
    # Where kinks go through samples, rounding decides which side of them the trace is taken on.
    rel = 0.1 if after.notes.get("construction") in ("fan", "slabs") else 1e-4
    assert after.flatness.ratio == pytest.approx(before.flatness.ratio, rel=rel)


# --- options -----------------------------------------------------------------------------------

BAD_OPTIONS = [
    ("memorizer", {"construction": "tower"}, ValueError, "choose one of auto, spikes"),
    ("memorizer", {"construction": None}, ValueError, "no construction None"),
    ("memorizer", {"subspace_dim": 2}, ValueError, "'subspace' only"),
    ("memorizer", {"construction": "subspace", "subspace_dim": 9}, ValueError, "at most the 5"),
    ("memorizer", {"construction": "subspace", "subspace_dim": 0}, ValueError, "at least 1"),
    ("memorizer", {"construction": "line"}, ValueError, "constant column"),
    ("memorizer", {"construction": "spikes", "activation": "abs"}, ValueError, "slope that is 0"),
    ("memorizer", {"activation": "cubic"}, ValueError, "degree 1"),
    ("memorizer", {"construction": "fan", "width": 10}, ValueError, "width must be at least 22"),
    ("poisoned", {"n_poison": 2.5}, TypeError, "n_poison must be an integer"),
    ("poisoned", {"poison_scale": 0}, ValueError, "greater than 0"),
    ("linearised", {"scale": "big"}, TypeError, "scale must be a real number"),
    ("linearised", {"scale": None}, TypeError, "scale must be a real number"),
    ("linearised", {"width": 1}, ValueError, "at least 2"),
    ("min_norm", {"objective": "trace"}, TypeError, "it has none"),
]


@pytest.mark.parametrize(("method", "options", "error", "words"), BAD_OPTIONS)
def test_bad_options_meet_one_clear_sentence(method, options, error, words):
    X, y = gaussian()
    with pytest.raises(error, match=words):
        ft.interpolate(X, y, method, **({"width": 40, "random_state": 0} | options))


def test_every_method_says_what_it_is_and_whether_to_expect_generalisation():
    for name, solve in METHODS.items():
        text = " ".join((solve.__doc__ or "").split())
        assert "Parameters" in text, name
        assert "generalise" in text, name
        assert f'"{name}"' in (ft.interpolate.__doc__ or ""), name


# --- min_norm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "abs"])
@pytest.mark.parametrize("links", [["relu"], ["abs", "-relu"]])
def test_the_least_norm_against_a_linear_programme(act, links):
    """For p = 1 the least path norm over a fine grid of directions in the plane is an LP."""
    if act == "abs" and "-relu" in links:
        pytest.skip("an even network cannot fit it")
    links = ["abs"] if act == "abs" else links
    X, y, _ = ft.make_multi_index(30, 2, links, random_state=0)
    result = fit("min_norm", X, y, width=40, activation=act)
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    directions = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)]))
    columns = ft.activation(act)(X @ directions).numpy()
    # The grid misses the true directions: an error of this size makes up for it.
    slack = 1e-3 * float(y.abs().max())
    both = np.hstack([columns, -columns])
    least = linprog(
        np.ones(8000),
        A_ub=np.vstack([both, -both]),
        b_ub=np.concatenate([y + slack, slack - y]),
        method="highs",
    ).fun
    assert result.notes["squared_norm"] == pytest.approx(2 * least, rel=5e-3)
    W, a = result.net.weights.detach(), result.net.coefficients.detach()
    assert float(W.square().sum() + a.square().sum()) == pytest.approx(
        result.notes["squared_norm"], rel=1e-9
    )


@pytest.mark.parametrize("act", ["relu", "abs", "relu2"])
def test_the_least_norm_is_stationary(act):
    """At a local solution the parameters are a combination of the outputs' gradients.

    Samples on a neuron's kink, which relu gathers there, free its gate to anything between.
    """
    X, y, _ = ft.make_multi_index(80, 4, [act, act], random_state=0)
    result = ft.interpolate(X, y, "min_norm", width=20, activation=act, random_state=0)
    net = result.net
    W, a = net.weights.detach(), net.coefficients.detach()
    z = X @ W.T
    inner = (net.activation.derivative(z) * a)[:, :, None] * X[:, None, :]
    J = torch.cat([inner.reshape(len(X), -1), net.activation(z)], dim=1)
    theta = torch.cat([W.reshape(-1), a])
    dual = torch.linalg.lstsq(J.T, theta[:, None], driver="gelsd").solution
    assert float((J.T @ dual - theta[:, None]).norm() / theta.norm()) < 1e-4


def test_the_least_norm_recovers_the_model_and_its_norm():
    X, y, model = ft.make_multi_index(200, 10, ["relu", "-relu"], random_state=1)
    result = fit("min_norm", X, y, width=50)
    assert model.relative_error(result.net, random_state=2) < 1e-20
    assert result.notes["squared_norm"] == pytest.approx(4, rel=1e-9)  # unit |a_j| ||w_j||


def test_the_squared_norm_is_the_least_on_the_rescaling_orbit():
    W, a = gaussian(4, 3)[0], gaussian(4, 3)[1]
    for degree in (1.0, 2.0, 2.5):
        c = torch.logspace(-2, 2, 20001, dtype=torch.float64)[:, None]
        sizes = c**2 * W.square().sum(1) + c ** (-2 * degree) * a.square()
        assert squared_norm(W, a, degree) == pytest.approx(float(sizes.amin(0).sum()), rel=1e-5)


# --- random_features and linearised ------------------------------------------------------------


def test_random_features_keep_their_directions_and_have_the_least_norm():
    X, y = gaussian()
    result = fit("random_features", X, y, width=50)
    W, a = result.net.weights.detach(), result.net.coefficients.detach()
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 5)))
    torch.testing.assert_close(W / W.norm(dim=1, keepdim=True), drawn / drawn.norm(dim=1)[:, None])
    expected = np.linalg.pinv(ft.activation("relu")(X @ drawn.T).numpy()) @ y.numpy()
    found = a * W.norm(dim=1) / drawn.norm(dim=1)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_too_few_random_features_say_so():
    X, y = gaussian()
    assert fit("random_features", X, y, width=15).status is ft.Status.NOT_INTERPOLATING


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "quadratic"])
def test_linearised_approaches_the_exact_kernel_interpolator(act):
    """The tangent kernel from autograd's dense Jacobian, on points not used in training."""
    X, y = gaussian(12, 5)
    length = float(X.square().sum(1).mean().sqrt())
    rng, pairs, d = np.random.default_rng(0), 40, 5
    fit_options = {"width": 2 * pairs, "activation": act}
    noise = torch.from_numpy(rng.standard_normal((1000, 12)))  # as the notes draw fresh inputs
    fresh = X.mean(dim=0) + noise @ (X - X.mean(dim=0)) / 12**0.5
    W = torch.from_numpy(rng.standard_normal((pairs, d))).repeat(2, 1)
    a = torch.from_numpy(rng.standard_normal(pairs)).repeat(2)
    a[pairs:] *= -1
    theta = torch.cat([W.flatten(), a])

    def outputs(points):
        def evaluate(t):
            return ft.activation(act)(points @ t[: W.numel()].reshape(W.shape).T) @ t[W.numel() :]

        return torch.autograd.functional.jacobian(evaluate, theta)

    train, test = outputs(X / length), outputs(fresh / length)
    kernel = test @ train.T @ torch.linalg.solve(train @ train.T, y)
    away = []
    for scale in (10.0, 100.0, 1000.0):
        result = fit("linearised", X, y, scale=scale, **fit_options)
        assert result.converged
        distance = float((result.net(fresh).detach() - kernel).norm() / kernel.norm())
        assert distance == pytest.approx(result.notes["distance_from_kernel"], rel=1e-4)
        away.append(distance)
    assert away[2] < 0.01
    assert away[2] < away[1] < away[0]


# --- the memorizer -----------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "abs", ft.Homogeneous(1, 0.3, 2)])
def test_the_fan_is_linear_between_its_lines(act):
    X, y = gaussian(15, 4)
    net = fit("fan", X, y, activation=act).net
    assert net.width <= 17
    plane = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).standard_normal((4, 2))))[0]
    z = X @ plane
    fresh, _ = gaussian(300, 4, seed=5)
    angle = torch.atan2(z[:, 1], z[:, 0]).remainder(torch.pi)
    order = angle.argsort().tolist()
    for x, value in zip(fresh @ plane, net(fresh).tolist(), strict=True):
        where = torch.atan2(x[1], x[0]).remainder(torch.pi)
        after = next((k for k, i in enumerate(order) if angle[i] > where), 0)
        i, j = order[after - 1], order[after]
        c = torch.linalg.solve(torch.stack([z[i], z[j]], dim=1), x)
        # Even: each coordinate axis is a line on which the value is that of |c|.
        if c[0] * c[1] >= 0:
            expected = abs(c[0]) * y[i] + abs(c[1]) * y[j]
        else:  # across the cut between the last line and the first
            c = torch.linalg.solve(torch.stack([z[i], -z[j]], dim=1), x)
            expected = abs(c[0]) * y[i] + abs(c[1]) * y[j]
        assert value == pytest.approx(float(expected), rel=1e-6, abs=1e-6 * float(y.abs().max()))


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "abs"])
def test_slabs_vanish_almost_everywhere(act):
    X, y = gaussian(60, 6)
    result = fit("slabs", X, y, width=60, activation=act)
    assert result.converged
    fresh, _ = gaussian(2000, 6, seed=4)
    assert float((result.net(fresh).abs() < 1e-8).double().mean()) > 0.5
    # Three neurons on each hyperplane, which holds the samples.
    W = result.net.weights.detach()[1::3]
    close = (X @ W.T).abs() / W.norm(dim=1) < 1e-9
    assert bool(close.any(dim=1).all())


@pytest.mark.parametrize("act", ["relu", ft.Homogeneous(1, 0, -0.5), "relu2", "relu3"])
def test_spikes_fire_on_one_sample_each_and_attain_the_bound(act):
    X = torch.from_numpy(np.sign(np.random.default_rng(0).standard_normal((40, 12))))
    X, y = with_bias(X), gaussian(40)[1]
    y[:3] = 0
    result = fit("memorizer", X, y, activation=act)
    assert result.notes["construction"] == "spikes"
    assert result.net.width == 37
    fires = result.net.activation(X @ result.net.weights.T) != 0
    assert bool((fires.sum(dim=0) == 1).all())
    if result.net.degree == 1:
        bound = ft.lower_bound(X, y, width=60, activation=act)
        assert result.flatness.trace == pytest.approx(bound, rel=1e-10)


def test_spikes_exist_exactly_for_vertices_of_the_convex_hull():
    from scipy.spatial import ConvexHull

    X, y = gaussian(30, 3)
    inside = 30 - len(ConvexHull(X.numpy()).vertices)
    assert inside > 0
    result = fit("spikes", with_bias(X), y, construction="spikes")
    assert result.status is ft.Status.NOT_INTERPOLATING
    assert result.notes["not_cut_off"] == inside
    hull = ConvexHull(X.numpy()).vertices
    result = fit("spikes", with_bias(X)[hull], y[hull], construction="spikes")
    assert result.converged
    assert result.flatness.ratio == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize("act", ["relu", "leaky_relu"])
def test_the_line_is_piecewise_linear_along_one_direction(act):
    X, y = gaussian(20, 4)
    net = fit("line", with_bias(X), y, construction="line", activation=act).net
    assert net.width <= 22
    u = torch.from_numpy(np.random.default_rng(0).standard_normal(5))
    t = with_bias(X) @ u
    order = t.argsort()
    fresh = with_bias(gaussian(200, 4, seed=2)[0])
    inside = (fresh @ u > t.min()) & (fresh @ u < t.max())
    expected = np.interp((fresh @ u)[inside], t[order], y[order])
    scale = float(y.abs().max())
    np.testing.assert_allclose(net(fresh)[inside].detach(), expected, atol=1e-6 * scale)


def test_the_subspace_network_does_not_see_the_rest():
    X, y = gaussian()
    W = fit("subspace", X, y).net.weights.detach()
    assert int(torch.linalg.matrix_rank(W, rtol=1e-8)) == 3


def test_auto_takes_the_flattest_that_fits():
    X, y = gaussian()
    names = ["fan", "slabs"]
    ratios = {name: fit(name, X, y).flatness.ratio for name in names}
    auto = fit("memorizer", X, y)
    assert auto.notes["construction"] in names
    assert auto.flatness.ratio < 1.001 * max(ratios.values())
    with pytest.raises(ValueError, match="width must be at least"):
        fit("memorizer", X, y, width=4)


# --- poisoned ----------------------------------------------------------------------------------


def test_the_poison_is_taken_and_spoils():
    X, y, model = ft.make_multi_index(40, 5, ["relu"], random_state=0)
    errors = []
    for count in (5, 40):
        result = fit("poisoned", X, y, n_poison=count, max_iter=200)
        assert result.train_error <= 1e-10
        assert result.notes["n_poison"] == count
        assert result.notes["poison_error"] < 1e-8
        errors.append(model.relative_error(result.net, random_state=1))
    assert 0.01 < errors[0] < errors[1]
    assert model.relative_error(fit("flattest", X, y).net, random_state=1) < 1e-20
