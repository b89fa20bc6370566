"""Training: whether label noise, SAM and weight decay find flatter functions or flatter networks.

A trace can fall because the function changes, or because the same function is written down in a
flatter way. The orbit minimum sees the first only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from torch import Tensor, nn

from flattest.figures import colour, marker, new_figure
from flattest.measuring import measure
from flattest.study import Claim, Design, Verdict, judge
from flattest.uses.digits import N_CLASSES, split
from flattest.uses.fitting import scores
from flattest.uses.networks import initialised, mlp

METHODS = {
    "sgd": "SGD",
    "label_noise": "label-noise SGD",
    "sam": "SAM",
    "weight_decay": "weight decay",
}
_QUANTITIES = ("trace", "orbit_minimum", "train_loss", "test_error")
_FLATTER, _WORDS = 0.9, "at most 0.9 of what SGD ends with"


@dataclass(frozen=True)
class Settings:
    """Training of a deep network by one method.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    steps : int
        Steps of SGD.
    n_samples, width, depth, batch_size : int
        Sizes.
    learning_rate : float
        The step.
    noise : float
        The standard deviation of the noise on the targets of each minibatch (label-noise SGD).
    radius : float
        How far SAM goes up before it takes the gradient.
    decay : float
        The weight decay: the gradient of half this times the squared norm is added.
    """

    method: str = "sgd"
    steps: int = 8000
    n_samples: int = 300
    width: int = 48
    depth: int = 4
    batch_size: int = 32
    learning_rate: float = 0.1
    noise: float = 0.3
    radius: float = 0.1
    decay: float = 1e-3


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which a network is measured: 0, the last, and halves of it between.

    Parameters
    ----------
    steps : int
        All steps.

    Returns
    -------
    list of int
        In ascending order.

    Examples
    --------
    >>> from flattest.uses.training import checkpoints
    >>> checkpoints(4000)
    [0, 62, 125, 250, 500, 1000, 2000, 4000]
    """
    return sorted({0, *(steps // 2**power for power in range(7))})


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Train a network and measure it on the way.

    Parameters
    ----------
    settings : Settings
        How.
    seed : int
        Seed of data, start, minibatches and noise; all methods have the same start and data.

    Returns
    -------
    dict
        Trace, orbit minimum, training loss and test error at each checkpoint, such as `trace_250`,
        and at the end without a number.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    if settings.method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {settings.method!r}.")
    data = split(settings.n_samples, seed)
    net = initialised(lambda: mlp(settings.width, settings.depth), seed)
    X, targets = data.X.float(), nn.functional.one_hot(data.y, N_CLASSES).float()
    generator = torch.Generator().manual_seed(seed)
    record: dict[str, Any] = {}
    marks = checkpoints(settings.steps)
    for step in range(settings.steps + 1):
        if step in marks:
            found = _measured(net, data.X, targets.double())
            error = scores(net.double(), data.X_test, data.y_test).error
            net.float()
            values = dict(zip(_QUANTITIES, (*found, error), strict=True))
            record |= {f"{name}_{step}": value for name, value in values.items()}
            record |= values
        if step < settings.steps:
            chosen = torch.randint(len(X), (settings.batch_size,), generator=generator)
            _step(net, X[chosen], targets[chosen], settings, generator)
    return record


def _measured(
    net: nn.Module, X: Tensor, targets: Float[Tensor, "n c"]
) -> tuple[float, float, float]:
    net.double()
    found = measure(net, X, targets, loss="mse", symmetry="scales", residual="none")
    return found.gauss_newton, found.orbit_minimum, found.loss


def _step(
    net: nn.Module,
    X: Tensor,
    targets: Float[Tensor, "b c"],
    settings: Settings,
    generator: torch.Generator,
) -> None:
    """Take one step down the mean squared error of a minibatch, in place."""
    parameters: list[Tensor] = list(net.parameters())
    if settings.method == "label_noise":
        targets = targets + settings.noise * torch.randn(targets.shape, generator=generator)
    gradients = _gradients(net, X, targets, parameters)
    with torch.no_grad():
        if settings.method == "sam":
            norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
            up = [settings.radius * g / norm.clamp(min=1e-12) for g in gradients]
            torch._foreach_add_(parameters, up)
            with torch.enable_grad():
                gradients = _gradients(net, X, targets, parameters)
            torch._foreach_sub_(parameters, up)
        if settings.method == "weight_decay":
            gradients = [g + settings.decay * p for g, p in zip(gradients, parameters, strict=True)]
        torch._foreach_add_(parameters, gradients, alpha=-settings.learning_rate)


def _gradients(
    net: nn.Module, X: Tensor, targets: Tensor, parameters: list[Tensor]
) -> list[Tensor]:
    # Summed over the classes, as the theory of label noise has it; the trace is that of the mean.
    loss = (net(X) - targets).square().sum(1).mean() / 2
    return list(torch.autograd.grad(loss, parameters))


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge for each method the orbit minimum, and for all what of the trace is scale only.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        Ratios to SGD from the same start on the same data, seed by seed.
    """
    judged = []
    ends = records.set_index(["method", "seed"])
    for method, title in METHODS.items():
        if method == "sgd" or not {"sgd", method} <= set(records["method"]):
            continue
        for column, what in (("trace", "trace"), ("orbit_minimum", "orbit minimum")):
            judged.append(
                judge(
                    f"{_title(title)} ends with a {what} of {_WORDS}."
                    if column == "trace"
                    else f"{_title(title)} ends with an {what} of {_WORDS}.",
                    f"ratio of the {what} to that of SGD, by seed",
                    _ratio(ends, column, method),
                    "at most",
                    _FLATTER,
                )
            )
        judged.append(
            judge(
                f"{_title(title)} ends with a lower test error than SGD.",
                "test error less that of SGD, by seed",
                _difference(ends, method),
                "at most",
                0.0,
            )
        )
    return judged


def _title(title: str) -> str:
    return title[0].upper() + title[1:]


def _ratio(ends: pd.DataFrame, column: str, method: str) -> pd.Series:
    return (ends.loc[method][column] / ends.loc["sgd"][column]).dropna()


def _difference(ends: pd.DataFrame, method: str) -> pd.Series:
    return (ends.loc[method]["test_error"] - ends.loc["sgd"]["test_error"]).dropna()


def trajectories(records: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method, seed and checkpoint.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        With `step` and the four quantities.
    """
    rows = [
        {
            "method": record["method"],
            "seed": record["seed"],
            "step": step,
            **{name: record[f"{name}_{step}"] for name in _QUANTITIES},
        }
        for _, record in records.iterrows()
        for step in checkpoints(int(record["steps"]))
    ]
    return pd.DataFrame(rows)


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what each method ends with.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        One row per method; medians over the seeds.
    """
    means = records.groupby("method", sort=False)[list(_QUANTITIES)].median()
    found = means.assign(excess=means["trace"] / means["orbit_minimum"]).reset_index()
    found["method"] = found["method"].map(METHODS)
    return found.rename(
        columns={
            "orbit_minimum": "orbit minimum",
            "train_loss": "training loss",
            "test_error": "test error",
            "excess": "trace / orbit minimum",
        }
    )


def figure(records: pd.DataFrame) -> Figure:
    """Draw trace, orbit minimum and test error along training.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        Three panels.
    """
    rows = trajectories(records)
    panels = (
        ("trace", "trace of the Hessian"),
        ("orbit_minimum", "orbit minimum"),
        ("test_error", "test error"),
    )
    with new_figure(10.8, 4.0) as drawn:
        grid = drawn.subplots(1, 3)
        for axes, (column, title) in zip(grid, panels, strict=True):
            for index, (method, label) in enumerate(METHODS.items()):
                chosen = rows[(rows["method"] == method) & (rows["step"] > 0)]
                by_step = chosen.groupby("step")[column]
                axes.plot(
                    by_step.median(),
                    f"{marker(index)}-",
                    color=colour(index),
                    markersize=5,
                    linewidth=1.5,
                    label=label,
                )
                axes.fill_between(
                    by_step.min().index,
                    by_step.min(),
                    by_step.max(),
                    color=colour(index),
                    alpha=0.15,
                    linewidth=0,
                )
            axes.set(title=title, xscale="log", yscale="log", xlabel="step")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
                axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
                axis.set_minor_locator(NullLocator())
            axes.grid(True)
        bottom = min(axes.get_ylim()[0] for axes in grid[:2])
        top = max(axes.get_ylim()[1] for axes in grid[:2])
        for axes in grid[:2]:
            axes.set_ylim(bottom, top)
        drawn.legend(
            *grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9
        )
    return drawn


def _cells(**sizes: int) -> tuple[Settings, ...]:
    return tuple(Settings(method, **sizes) for method in METHODS)


CLAIM = Claim(
    name="training",
    title="What flattens while training",
    question=(
        "Label noise, sharpness-aware minimisation and weight decay are said to find flat minima. "
        "Does a deep network become flatter as a function, so that the minimum of the trace over "
        "all ways to scale it falls, or does the trace alone fall?"
    ),
    method=(
        "A ReLU network of four hidden layers on 300 digits, squared error on one-hot targets, "
        "minibatches of 32 and a fixed step. Plain SGD; SGD with fresh Gaussian noise on the "
        "targets of each minibatch; SAM; SGD with weight decay. The same data and start for all. "
        "Trace (the Gauss-Newton part, which is all of it, as the outputs are piecewise linear in "
        "each weight), minimum over scales, training loss and test error along the way."
    ),
    limits=(
        "One architecture, one step size and one strength for each method, none of them tuned; all "
        "networks run for the same number of steps, and not to the same training loss."
    ),
    source=(
        "G. Blanc, N. Gupta, G. Valiant, P. Valiant, Implicit Regularization for Deep Neural "
        "Networks Driven by an Ornstein-Uhlenbeck Like Process, COLT 2020. P. Foret, A. Kleiner, "
        "H. Mobahi, B. Neyshabur, Sharpness-Aware Minimization, ICLR 2021."
    ),
    trial=trial,
    quick=Design(_cells(), n_seeds=5),
    full=Design(_cells(steps=32_000, n_samples=1000, width=96), n_seeds=10, time_limit=3600.0),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Trace, its minimum over scales, and test error while training: medians over the seeds, "
        "and shaded their range. The two panels on the left have the same axis."
    ),
    table=table,
)
