"""Every loss and option: columns of its Hessian, its normaliser, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from gauss_newton import diagonal
from torch import nn

import flattest as ft
from flattest.modules.curvature import output_hessian
from flattest.modules.losses import Normalisers, resolve
from flattest.modules.output_hessian import Blocks, Diagonal, Softmax

N, C = 6, 4
GENERATOR = torch.Generator().manual_seed(0)
CLASSES = torch.tensor([0, 3, 1, 1, 2, 0])
WEIGHTS = torch.tensor([1.0, 2.0, 4.0, 0.5])
SOFT = torch.softmax(torch.randn(N, C, generator=GENERATOR, dtype=torch.float64), dim=1)
REAL = torch.randn(N, C, generator=GENERATOR, dtype=torch.float64)
BINARY = (REAL > 0).double()
COUNTS = torch.randint(0, 5, (N, C), generator=GENERATOR).double()


def focal(z, y):
    """Cross-entropy that fades out where the class is likely: neither softmax nor diagonal."""
    p = torch.softmax(z, dim=1).gather(1, y[:, None])[:, 0]
    return -((1 - p) ** 2 * p.log()).mean()


def welsch(z, y):
    """Bounded, so with negative second derivatives away from the target."""
    return (1 - torch.exp(-((z - y) ** 2))).mean()


def pairwise_within(z, y):
    """A loss that couples the outputs of one sample, and no others."""
    return ((z[:, :, None] - z[:, None, :] - y[:, :1, None]) ** 3).sum() / len(z)


LOSSES = {
    "mse": ("mse", REAL),
    "mse, sum": (nn.MSELoss(reduction="sum"), REAL),
    "cross_entropy": ("cross_entropy", CLASSES),
    "cross-entropy, sum": (nn.CrossEntropyLoss(reduction="sum"), CLASSES),
    "cross-entropy, weights": (nn.CrossEntropyLoss(weight=WEIGHTS), CLASSES),
    "cross-entropy, ignored": (nn.CrossEntropyLoss(ignore_index=1), CLASSES),
    "cross-entropy, smoothing": (nn.CrossEntropyLoss(label_smoothing=0.2), CLASSES),
    "cross-entropy, soft targets": ("cross_entropy", SOFT),
    "cross-entropy, soft targets, weights and smoothing": (
        nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1),
        SOFT,
    ),
    "cross-entropy, all options": (
        nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=1, label_smoothing=0.3),
        CLASSES,
    ),
    "bce_with_logits": ("bce_with_logits", BINARY),
    "bce, weights": (nn.BCEWithLogitsLoss(weight=WEIGHTS, pos_weight=1 + WEIGHTS), BINARY),
    "huber": (nn.HuberLoss(delta=0.7), REAL),
    "smooth L1": (nn.SmoothL1Loss(beta=0.5), REAL),
    "Poisson": (nn.PoissonNLLLoss(), COUNTS),
    "multi-label soft margin": (nn.MultiLabelSoftMarginLoss(), BINARY),
    "Kullback-Leibler": (lambda z, y: F.kl_div(z.log_softmax(1), y, reduction="batchmean"), SOFT),
    "focal": (focal, CLASSES),
    "Welsch": (welsch, REAL),
    "coupled outputs": (pairwise_within, REAL),
    "L1": (nn.L1Loss(), REAL),
    "log-softmax behind the cut": (lambda z, y: -(z * y).mean(), SOFT),
}


def network(outputs=C):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


X = torch.randn(N, 3, generator=GENERATOR, dtype=torch.float64)


def as_function(loss, y):
    """Return the loss in float64, as it is meant, without flattest."""
    if isinstance(loss, str):
        loss = {
            "mse": F.mse_loss,
            "cross_entropy": F.cross_entropy,
            "bce_with_logits": F.binary_cross_entropy_with_logits,
        }[loss]
    elif isinstance(loss, nn.Module):
        loss = loss.double()
    return lambda z: loss(z, y)


@pytest.mark.parametrize("name", LOSSES)
def test_diagonal_for_every_loss(name):
    loss, y = LOSSES[name]
    model = network()
    flatness = ft.measure(model, X, y, loss=loss)
    function = as_function(loss, y)
    assert flatness.loss == pytest.approx(float(function(model(X).detach())), rel=1e-13)
    for key, values in diagonal(model, (X,), function).items():
        torch.testing.assert_close(
            flatness.diagonal()[key], values, rtol=1e-10, atol=1e-14 * float(values.abs().max())
        )


@pytest.mark.parametrize("name", LOSSES)
def test_batches_are_weighed_by_the_normaliser(name):
    loss, y = LOSSES[name]
    model = network()
    whole = ft.measure(model, X, y, loss=loss)
    for sizes in ([1, 5], [2, 2, 2], [1] * 6, [4, 2]):
        parts = list(zip(X.split(sizes), y.split(sizes), strict=True))
        found = ft.measure(model, parts, loss=loss)
        assert found.gauss_newton == pytest.approx(whole.gauss_newton, rel=1e-9, abs=1e-15)
        assert found.loss == pytest.approx(whole.loss, rel=1e-9)
        assert found.n_samples == N
    for size in (1, 4):
        found = ft.measure(model, X, y, loss=loss, batch_size=size)
        assert found.gauss_newton == pytest.approx(whole.gauss_newton, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("shape", [(C,), (C, 2), (C, 2, 3)])
@pytest.mark.parametrize("options", [{}, {"weight": WEIGHTS, "ignore_index": 2}])
def test_classes_along_axis_1(shape, options):
    loss = nn.CrossEntropyLoss(**options)
    model = nn.Sequential(nn.Linear(3, math.prod(shape)), nn.Unflatten(1, shape)).double()
    y = torch.randint(0, C, (N, *shape[1:]), generator=GENERATOR)
    flatness = ft.measure(model, X, y, loss=loss)
    function = as_function(loss, y)
    for key, values in diagonal(model, (X,), function).items():
        torch.testing.assert_close(flatness.diagonal()[key], values, rtol=1e-10, atol=1e-15)


def test_classes_along_the_last_axis_by_a_function():
    model = nn.Sequential(nn.Linear(3, 10), nn.Unflatten(1, (2, 5))).double()
    y = torch.randint(0, 5, (N, 2), generator=GENERATOR)

    def loss(z, targets):
        return F.cross_entropy(z.flatten(0, 1), targets.flatten(), ignore_index=1)

    whole = ft.measure(model, X, y, loss=loss)
    for key, values in diagonal(model, (X,), lambda z: loss(z, y)).items():
        torch.testing.assert_close(whole.diagonal()[key], values, rtol=1e-10, atol=1e-15)
    parts = [(X[:1], y[:1]), (X[1:], y[1:])]
    assert ft.measure(model, parts, loss=loss).gauss_newton == pytest.approx(whole.gauss_newton)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 900.0])
def test_columns_rebuild_the_hessian(scale):
    z = scale * REAL
    for name, kind in [
        ("mse", Diagonal),
        ("cross-entropy, all options", Softmax),
        ("focal", Blocks),
        ("coupled outputs", Blocks),
    ]:
        loss, y = LOSSES[name]
        function = as_function(loss, y)
        dense = torch.autograd.functional.hessian(function, z)
        if not torch.isfinite(dense).all():
            continue
        hessian = output_hessian(function, z, name)
        blocks = torch.stack([dense[i, :, i] for i in range(N)])
        assert scale != 1 or isinstance(hessian, kind)
        columns, signs = hessian.columns(range(hessian.n_columns), slice(None))
        rebuilt = torch.einsum("cn,cni,cnj->nij", signs, columns, columns)
        assert torch.isfinite(rebuilt).all()
        assert (rebuilt - blocks).abs().max() <= 1e-12 * blocks.abs().max().clamp(min=1e-12)


def test_softmax_of_a_fitted_net_keeps_its_digits():
    # p is 1 up to 1e-30: the Hessian is tiny, but its columns are right to many digits.
    z = torch.tensor([[70.0, 0.0, 1.0]], dtype=torch.float64)
    hessian = output_hessian(lambda v: F.cross_entropy(v, torch.tensor([0])), z, "entropy")
    columns, _ = hessian.columns(range(2), slice(None))
    p = torch.softmax(z, 1)[0]
    rebuilt = torch.einsum("cni,cnj->ij", columns, columns)
    assert rebuilt[1, 1] == pytest.approx(float(p[1] * (1 - p[1])), rel=1e-9)
    assert rebuilt[0, 2] == pytest.approx(float(-p[0] * p[2]), rel=1e-9)


# The data of the closed forms: three rows of squared norms 5, 9 and 1, and zero weights.
ROWS = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1])


def zero_head():
    model = nn.Linear(2, 3, bias=False).double()
    nn.init.zeros_(model.weight)
    return model


@pytest.mark.parametrize(
    ("loss", "y", "value"),
    [
        ("cross_entropy", LABELS, 10 / 3),
        (nn.CrossEntropyLoss(reduction="sum"), LABELS, 10),
        ("mse", torch.zeros(3, 3).double(), 10),
        ("bce_with_logits", torch.zeros(3, 3).double(), 1.25),
        (nn.CrossEntropyLoss(ignore_index=1), LABELS, 14 / 3),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0])), LABELS, 86 / 21),
        (nn.CrossEntropyLoss(label_smoothing=0.1), LABELS, 10 / 3),
        ("cross_entropy", F.one_hot(LABELS).double(), 10 / 3),
        (nn.MSELoss(reduction="sum"), torch.zeros(3, 3).double(), 90),
    ],
)
def test_values_in_closed_form(loss, y, value):
    assert ft.measure(zero_head(), ROWS, y, loss=loss).gauss_newton == pytest.approx(value)


@pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 1], [3]])
def test_no_mean_of_batch_means(sizes):
    parts = list(zip(ROWS.split(sizes), LABELS.split(sizes), strict=True))
    for loss in ("cross_entropy", nn.CrossEntropyLoss(), F.cross_entropy):
        found = ft.measure(zero_head(), parts, loss=loss)
        assert found.gauss_newton == pytest.approx(10 / 3)
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]), ignore_index=1)
    whole = ft.measure(zero_head(), ROWS, LABELS, loss=weighted)
    # The batch [2] or the third of [1, 1, 1] may hold ignored rows alone.
    assert ft.measure(zero_head(), parts, loss=weighted).gauss_newton == pytest.approx(
        whole.gauss_newton
    )


def test_mse_aligns_or_refuses():
    model = nn.Linear(2, 1, bias=False).double()
    y = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    column = ft.measure(model, ROWS, y[:, None])
    for targets in (y, y.tolist()):
        assert ft.measure(model, ROWS, targets).to_dict() == column.to_dict()
    flat = nn.Sequential(model, nn.Flatten(0))
    assert ft.measure(flat, ROWS, y[:, None]).gauss_newton == column.gauss_newton
    with pytest.raises(ValueError, match=r"y has shape \(3, 2\).*outputs have shape \(3, 1\)"):
        ft.measure(model, ROWS, ROWS)
    with pytest.raises(ValueError, match="does not notice which target belongs to which sample"):
        ft.measure(model, ROWS, y, loss=lambda z, t: ((z - t) ** 2).mean())
    aligned = ft.measure(model, ROWS, y, loss=lambda z, t: ((z[:, 0] - t) ** 2).mean())
    assert aligned.gauss_newton == pytest.approx(column.gauss_newton)


def info_nce(z, y):
    return F.cross_entropy(z @ z.T, torch.arange(len(z)))


@pytest.mark.parametrize(
    ("loss", "y", "error", "message"),
    [
        (info_nce, CLASSES, ValueError, "no sum over samples"),
        (lambda z, y: z.std(dim=0).sum(), CLASSES, ValueError, "no sum over samples"),
        ("hinge", CLASSES, ValueError, "'mse', 'cross_entropy', 'bce_with_logits'"),
        (3, CLASSES, TypeError, "loss must be a name"),
        (nn.CrossEntropyLoss, CLASSES, TypeError, r"make one, as in CrossEntropyLoss\(\)"),
        (nn.MSELoss(reduction="none"), REAL, ValueError, "reduction='none'"),
        (lambda z, y: (z - y) ** 2, REAL, ValueError, r"returned shape \(6, 4\), not one number"),
        (lambda z, y: 1.0, REAL, TypeError, "returned float, not a tensor"),
        (lambda z, y: (z - y).detach().mean(), REAL, ValueError, "does not depend on"),
        (lambda z, y: (z * math.nan).sum(), REAL, ValueError, "is nan"),
        ("cross_entropy", REAL[:, 0], TypeError, "integer classes"),
        ("cross_entropy", CLASSES + 2, ValueError, "classes from 2 to 5"),
        ("cross_entropy", torch.stack([CLASSES, CLASSES], 1), ValueError, "need classes of shape"),
        (nn.CrossEntropyLoss(ignore_index=0), 0 * CLASSES, ValueError, "every target is ignored"),
        ("mse", REAL[:4], ValueError, "y has 4 values, but X has 6 samples"),
        ("bce_with_logits", {"a": REAL}, TypeError, "targets that are a tensor"),
    ],
)
def test_refused(loss, y, error, message):
    with pytest.raises(error, match=message):
        ft.measure(network(), X, y, loss=loss)


def test_losses_take_no_options_they_would_drop():
    with pytest.raises(TypeError, match="ignore_index"):
        ft.measure(network(), X, CLASSES, loss="cross_entropy", ignore_index=1)  # type: ignore


def test_a_loss_that_is_neither_sum_nor_mean_over_batches():
    def root(z, y):
        return ((z - y) ** 2).sum() / len(z) ** 0.5

    model = network()
    whole = ft.measure(model, X, REAL, loss=root)  # of one batch it is what it is
    assert whole.gauss_newton > 0
    with pytest.raises(ValueError, match="neither a sum nor a weighted mean"):
        ft.measure(model, [(X[:2], REAL[:2]), (X[2:], REAL[2:])], loss=root)
    weights = Normalisers("loss")
    assert weights.weight(root, REAL, REAL) == 1
    with pytest.raises(ValueError, match="other shapes"):
        weights.weight(root, REAL[:, :2], REAL[:, :2])


def test_the_callers_loss_stays_as_it_was():
    loss = nn.CrossEntropyLoss(weight=WEIGHTS.clone())
    ft.measure(network(), X, CLASSES, loss=loss)
    assert loss.weight.dtype == torch.float32
    assert resolve(loss).name == "CrossEntropyLoss"
