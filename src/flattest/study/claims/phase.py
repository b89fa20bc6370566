"""Phase: the probability of exact recovery over samples and directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flattest.datasets import make_multi_index
from flattest.figures import new_figure
from flattest.interpolators import interpolate
from flattest.study.claim import Claim, Design
from flattest.study.recovery import RECOVERED, size_needed
from flattest.study.verdict import Verdict, judge, judge_share

"""The relative test error up to which the model counts as recovered."""
_RELU_ENOUGH = 8.0
_PANELS = {
    ("relu", "flattest"): "Sums of ReLUs, flattest",
    ("quadratic", "flattest"): "Sums of squares, flattest",
    ("quadratic", "nuclear_norm"): "Sums of squares, nuclear norm",
}


@dataclass(frozen=True)
class Settings:
    """One cell of the phase diagram.

    Parameters
    ----------
    link : str
        Link of the data and activation of the network.
    method : str
        ``"flattest"`` or, for quadratic links, ``"nuclear_norm"``.
    n_samples, n_features, n_directions, width : int
        ``n``, ``d``, ``k`` and ``m``.
    """

    link: str = "relu"
    method: str = "flattest"
    n_samples: int = 60
    n_features: int = 10
    n_directions: int = 2
    width: int = 40


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Fit noiseless samples of a model of ``k`` directions, and see whether it is found.

    Parameters
    ----------
    settings : Settings
        The cell.
    seed : int
        Seed of the data, whose directions do not depend on ``n``, and of the network.

    Returns
    -------
    dict
        Relative test error on fresh inputs, train MSE and how the solver ended.
    """
    X, y, model = make_multi_index(
        settings.n_samples,
        settings.n_features,
        [settings.link] * settings.n_directions,
        random_state=seed,
    )
    if settings.method == "nuclear_norm":
        M, status = _least_nuclear_norm(X.numpy(), y.numpy())

        def predict(inputs: Tensor) -> Float[np.ndarray, " n"]:
            rows = inputs.numpy()
            return np.einsum("ni,ij,nj->n", rows, M, rows)

        train_error = float(np.square(predict(X) - y.numpy()).mean())
        test_error = model.relative_error(predict, random_state=seed)
    else:
        found = interpolate(
            X,
            y,
            settings.method,
            width=settings.width,
            activation=settings.link,
            random_state=seed,
        )
        train_error, status = found.train_error, found.status.name.lower()
        test_error = model.relative_error(found.net, random_state=seed)
    return {"test_error": test_error, "train_error": train_error, "status": status}


def _least_nuclear_norm(
    X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "d d"], str]:
    """Solve ``min ||M||_* s.t. x_i^T M x_i = y_i``, symmetric: the difference of two psd parts."""
    try:
        import cvxpy as cp
    except ImportError as error:
        raise ImportError(
            "The nuclear norm is minimised by CVXPY, which is not installed; "
            "run pip install 'flattest[benchmarks]'."
        ) from error
    n, d = X.shape
    P, N = cp.Variable((d, d), PSD=True), cp.Variable((d, d), PSD=True)
    products = (X[:, :, None] * X[:, None, :]).reshape(n, -1)
    fits = products @ cp.vec(P - N, order="C") == y
    problem = cp.Problem(cp.Minimize(cp.trace(P) + cp.trace(N)), [fits])
    problem.solve(solver=cp.CLARABEL)
    if P.value is None:
        raise RuntimeError(f"CVXPY found no matrix: {problem.status}.")
    return P.value - N.value, str(problem.status)


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge recovery by many samples, and the samples needed against those of the nuclear norm.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        One per number of directions for ReLUs, one or two for squares.
    """
    judged = []
    flattest = records[records["method"] == "flattest"]
    relu = flattest[flattest["link"] == "relu"]
    enough = relu[relu["n_samples"] >= _RELU_ENOUGH * relu["n_features"]]
    for directions, rows in enough.groupby("n_directions"):
        k = int(str(directions))
        judged.append(
            judge_share(
                f"A sum of {k} ReLU{'s' * (k > 1)} is recovered from n = {_RELU_ENOUGH:g} d "
                "samples in more than half of the trials.",
                "share recovered",
                rows.groupby("seed")["test_error"].max() <= RECOVERED,
                "at least",
                0.5,
            )
        )
    squares = records[records["link"] == "quadratic"]
    for directions, rows in squares.groupby("n_directions"):
        k = int(str(directions))
        needed = {
            method: size_needed(group, ["n_features", "n_samples"])
            for method, group in rows.groupby("method")
        }
        if len(needed) == 2:
            quotient = needed["flattest"] / needed["nuclear_norm"]
            judged.append(
                judge(
                    f"For {k} squared direction{'s' * (k > 1)} the flattest network needs "
                    "no more samples than the least nuclear norm.",
                    "samples needed over samples needed, mean over the seeds",
                    quotient,
                    "at most",
                    1.0,
                    np.mean,
                )
            )
    return judged


def figure(records: pd.DataFrame) -> Figure:
    """Draw the share of trials with exact recovery as heat maps.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        One panel per kind of links and method.
    """
    kinds = set(zip(records["link"], records["method"], strict=True))
    panels = [kind for kind in _PANELS if kind in kinds]
    rows = max(records["n_directions"].nunique(), 2)
    with new_figure(3.5 * len(panels) + 0.9, 1.7 + 0.5 * rows) as drawn:
        row = drawn.subplots(1, len(panels), squeeze=False)[0]
        for axes, kind in zip(row, panels, strict=True):
            chosen = records[(records["link"] == kind[0]) & (records["method"] == kind[1])]
            image = _heat_map(axes, chosen)
            axes.set_title(_PANELS[kind], fontsize=10)
        drawn.axes[0].set_ylabel("directions  k")
        drawn.colorbar(image, ax=drawn.axes, label="share of trials with recovery", pad=0.02)
    return drawn


def _heat_map(axes: Axes, records: pd.DataFrame) -> Any:
    """Draw one map, each cell with its share."""
    ratios = (records["n_samples"] / records["n_features"]).rename("ratio")
    shares = (
        (records["test_error"] <= RECOVERED)
        .groupby([records["n_directions"], ratios])
        .mean()
        .unstack()
    )
    # Cividis: the same order of lightness for all eyes.
    image = axes.imshow(
        shares.to_numpy(), vmin=0, vmax=1, cmap="cividis", aspect="auto", origin="lower"
    )
    if shares.size <= 60:
        for (row, column), share in np.ndenumerate(shares.to_numpy()):
            if np.isfinite(share):
                ink = "white" if share < 0.5 else "black"
                text = f"{share:.2f}".rstrip("0").rstrip(".")
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(shares.shape[1]), [f"{ratio:g}" for ratio in shares.columns])
    axes.set_yticks(range(shares.shape[0]), [str(k) for k in shares.index])
    axes.set_xlabel("samples per feature  n / d")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _cells(
    d: int, directions: Sequence[int], relu: Sequence[float], squares: Sequence[float], width: int
) -> tuple[Settings, ...]:
    """Lay out the grid: samples per feature for the two kinds of links."""
    ratios = {"relu": relu, "quadratic": squares}
    return tuple(
        Settings(link, method, round(ratio * d), d, k, width)
        for link, method in _PANELS
        for k in directions
        for ratio in ratios[link]
    )


CLAIM = Claim(
    name="phase",
    title="When the model is recovered exactly",
    question=(
        "How many samples does the flattest interpolator need to be the model itself, and how does "
        "that number grow with the number k of directions? For squares of projections the model "
        "is a matrix of rank k, and there is a convex method to compare with: among all matrices "
        "that fit the data take the one of least nuclear norm."
    ),
    method=(
        "Noiseless sums of k ReLUs, or of k squares, of orthonormal directions, Gaussian inputs "
        "with d features. The flattest network of fixed width with that activation is fitted to n "
        "samples; the model is recovered if the relative error on 20,000 fresh inputs is at most "
        "1e-6. For the squares the same samples are given to CVXPY, which minimises the nuclear "
        "norm of M subject to x_i'Mx_i = y_i to the default accuracy of its solver Clarabel; its "
        "test error is measured in the same way. For each seed we take the fewest samples of the "
        "grid from which on the model is recovered."
    ),
    thresholds=(
        "Ours: 8 samples per feature, where half of the trials and more are to recover the model, "
        "stand for few samples that are enough for any number of directions tried. A relative "
        "error of 1e-6 stands for zero. The comparison with the nuclear norm has no threshold but "
        "equality."
    ),
    limits=(
        "The flattest quadratic network is not the matrix of least nuclear norm. For isotropic "
        "inputs the orbit minimum of a neuron grows, in expectation, with the power 4/3 of its "
        "eigenvalue; only when the copies that a wide network can make of a neuron are shared "
        "out among the eigenvalues in proportion does the whole become the power 4/3 of the "
        "nuclear norm. Nor is finding it convex: what is counted is what our solver finds. "
        "Recovery by fewer samples than the grid has, or between its points, is not resolved. The "
        "quick design has few features; d(d + 1)/2 samples determine any quadratic function of d "
        "features by themselves."
    ),
    source=(
        "L. Ding, D. Drusvyatskiy, M. Fazel, Z. Harchaoui, Flat minima generalize for low-rank "
        "matrix recovery, arXiv 2203.03756, 2022, for matrices and the nuclear norm; the phase "
        "diagram for ReLU networks, and the networks in place of matrix factors, are ours."
    ),
    trial=trial,
    quick=Design(_cells(10, (1, 2, 3), (2.0, 4.0, 6.0, 8.0), (2.0, 3.0, 4.0, 5.0), 30), 6),
    full=Design(
        _cells(
            40,
            (1, 2, 3, 4, 6, 8),
            (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0),
            (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0),
            100,
        ),
        10,
        3600.0,
    ),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Share of trials in which the model was recovered (relative error at most 1e-6 on fresh "
        "inputs), over samples per feature and number of directions."
    ),
)
