"""What a fitted regressor is, in words: one sentence, its noise, and whether its network counts."""

from __future__ import annotations

from typing import Any, NamedTuple

from flattest.figures.partial_dependence import LEAST_IMPORTANCE
from flattest.regression.prediction.average import Average
from flattest.regression.prediction.link import LinkPart
from flattest.regression.prediction.prior import Prior
from flattest.regression.regressor import MultiIndexRegressor
from flattest.regression.tuning import NETWORK_ERRORS
from flattest.wording import count, number

KERNELS = {
    "matern52": "Matérn 5/2",
    "gaussian": "Gaussian",
    "matern12": "Matérn 1/2",
    "linear": "linear",
}
"""The names of the kernels, for people."""
_LEAST_SHARE = 0.005  # of an average: less is not worth a word


class Description(NamedTuple):
    """What was fitted.

    Parameters
    ----------
    sentence : str
        One sentence.
    noise : str
        How noisy the target is about the function; empty where a network predicts alone.
    network : str
        Whether predictions use the network.
    kernel : str
        The kernel of the process that counts most; empty where a network predicts alone.
    all_matter : bool
        Whether predictions depend on all features, and not through a few directions.
    noises : tuple of dict
        For the target and its logarithm, as far as they are fitted: the standard deviation of the
        noise, and its share of the variance.
    """

    sentence: str
    noise: str
    network: str
    kernel: str
    all_matter: bool
    noises: tuple[dict[str, Any], ...]


def describe(regressor: MultiIndexRegressor, target: str) -> Description:
    """Describe a fitted regressor, from the processes that it predicts with.

    Parameters
    ----------
    regressor : MultiIndexRegressor
        Fitted.
    target : str
        The name of the target.

    Returns
    -------
    Description
        The words.

    Examples
    --------
    >>> import numpy as np
    >>> import flattest as ft
    >>> from flattest.tables.description import describe
    >>> x = np.arange(30.0)
    >>> y = x + np.random.default_rng(0).standard_normal(30)
    >>> model = ft.MultiIndexRegressor(width=10, random_state=0).fit(x[:, None], y)
    >>> describe(model, "wage").sentence
    'A linear function of the only feature, fitted to wage.'
    """
    d, shown = regressor.n_features_in_, _directions(regressor)
    link = regressor.predictor_.link
    if link is None:
        net = regressor.network_
        of = "a constant" if not shown else f"a network of {count(net.width, 'neuron')} on {shown}"
        return Description(
            sentence=f"{of[0].upper()}{of[1:]}, fitted to {target}.",
            noise="",
            network="The prediction is this network's." if shown else "",
            kernel="",
            all_matter=False,
            noises=(),
        )
    average = link.parts[0].average
    best = average.priors[0]
    words = _form(best, shown, d)
    others: dict[str, float] = {}
    for process, share in zip(average.priors[1:], average.shares[1:], strict=True):
        name = _short(process, d, best)
        others[name] = others.get(name, 0.0) + share
    others = {name: share for name, share in others.items() if share >= _LEAST_SHARE}
    if others:
        listed = [f"{name} ({share:.0%})" for name, share in others.items()]
        words += f" ({average.shares[0]:.0%}), averaged with {_and(listed)}"
    names = [_target_name(part, target) for part in link.parts]
    if len(link.parts) > 1:
        names = [f"{n} ({p.share:.0%})" for n, p in zip(names, link.parts, strict=True)]
    noises = [_noise(part, target) for part in link.parts]
    return Description(
        sentence=f"{words[0].upper()}{words[1:]}, fitted to {_and(names)}.",
        noise=f"Noise: {'; '.join(text for text, _ in noises)}.",
        network=_network(link.parts),
        kernel=best.shape,
        all_matter=_of_all(average) >= 0.5,
        noises=tuple(entry for _, entry in noises),
    )


def _of_all(average: Average) -> float:
    """Return how much functions of all features count that are not linear."""
    pairs = zip(average.priors, average.shares, strict=True)
    counted = [s for p, s in pairs if p.free != "projection" and p.shape != "linear"]
    return float(sum(counted))


def _directions(regressor: MultiIndexRegressor) -> str:
    """Count the directions that matter, and mention others."""
    importances = regressor.direction_importances_
    many = int((importances >= LEAST_IMPORTANCE).sum())
    rest = len(importances) - many
    more = f" (and hardly of {rest} more)" if rest else ""
    return f"{count(many, 'direction')}{more}" if many else ""


def _form(process: Prior, shown: str, d: int) -> str:
    """Say what kind of function a process is."""
    features = _features(d)
    if process.shape == "linear":
        return f"a linear function of {features}"
    kernel = KERNELS[process.shape] + " plus a linear trend" * process.trend
    if process.free == "lengths":
        lengths = "" if d == 1 else " with a length for each"
        return f"a smooth function of {features}, {kernel}{lengths}"
    if process.free == "scale":
        return f"a smooth function of {features}, {kernel}{'' if d == 1 else ' with one length'}"
    if process.additive:
        return f"a sum of smooth functions of one direction each, {shown} in all, {kernel}"
    return f"a smooth function of {shown}, {kernel}"


def _short(process: Prior, d: int, best: Prior) -> str:
    """Say what kind of function another process of an average is."""
    kernel = KERNELS[process.shape] + " plus a linear trend" * process.trend
    if process.free != "projection":
        lengths = {"lengths": " with a length for each", "scale": " with one length"}[process.free]
        kind = f"{kernel}{lengths if d > 1 else ''}"
        if best.shape == "linear":
            return f"a smooth one, {kind}"
        return kind if best.free != "projection" else f"a function of {_features(d)}, {kind}"
    if process.additive == best.additive:
        return kernel
    return (
        f"a sum over directions, {kernel}" if process.additive else f"one of all at once, {kernel}"
    )


def _features(d: int) -> str:
    return {1: "the only feature", 2: "both features"}.get(d, f"all {d} features")


def _target_name(part: LinkPart, target: str) -> str:
    return f"log({target})" if part.units.logarithmic else target


def _noise(part: LinkPart, target: str) -> tuple[str, dict[str, Any]]:
    """Say how noisy the target is beside a part's function."""
    share = part.average.noise
    deviation = share**0.5 * part.units.size
    name = _target_name(part, target)
    of_all = "less than 1%" if share < 0.005 else f"{share:.0%}"
    text = f"a standard deviation of {number(deviation)} of {name}, {of_all} of its variance"
    entry = {"target": name, "standard_deviation": deviation, "share_of_variance": share}
    return text, entry


def _network(parts: tuple[LinkPart, ...]) -> str:
    """Say whether predictions use the network."""
    used = [part for part in parts if part.network_error < NETWORK_ERRORS[-1]]
    if not used:
        return (
            "The prediction does not use this network: rows held out are predicted best by the "
            "Gaussian process alone."
        )
    errors = _and([f"{number(part.network_error**0.5 * part.units.size)}" for part in used])
    logs = " of the logarithm" if used[0].units.logarithmic else ""
    return (
        "The prediction uses this network a little: its output counts as an observation of the "
        f"function with a standard error of {errors}{logs}, which matters where the data say less."
    )


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
