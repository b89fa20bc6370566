"""Covers: what the report of a study says at its top and at its end, whatever came out."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Cover:
    """The texts of a report that are not those of its claims.

    Parameters
    ----------
    command : str
        The command that writes it, as in ``flattest reproduce``.
    noun : str
        What one of its claims is called, in the singular.
    title : str
        The heading.
    lead : str
        What the study asks, for people who know none of it.
    terms : tuple of (str, str or Markup)
        Words, and what they mean here.

    Examples
    --------
    >>> from flattest.study.cover import CLAIMS_COVER
    >>> CLAIMS_COVER.command
    'reproduce'
    """

    command: str
    noun: str
    title: str
    lead: str
    terms: tuple[tuple[str, str], ...]


CLAIMS_COVER = Cover(
    command="reproduce",
    noun="claim",
    title="Flatness and generalisation, measured",
    lead=(
        "Many neural networks fit the same training data without error. Do the flattest of them,"
        " those whose error rises least when their weights are perturbed, predict best on new "
        "data? This page tests each claim made about that, and each known limit of it, by "
        "experiments on synthetic data, where the truth is known. Every verdict is computed from"
        " the records of the experiments."
    ),
    terms=(
        (
            "Network",
            Markup(
                "A sum of <em>m</em> neurons, its width. A neuron multiplies the <em>d</em> "
                "features of the input by weights, adds the products up, applies an activation "
                "such as ReLU, and multiplies the result by a coefficient."
            ),
        ),
        (
            "Degree, homogeneous",
            Markup(
                "An activation is homogeneous of degree <em>p</em> if doubling its input "
                "multiplies its output by 2<sup><em>p</em></sup>: 1 for ReLU, 2 for the square."
            ),
        ),
        (
            "Flatness",
            "The trace of the Hessian (the sum of the second derivatives by every weight and "
            "coefficient) of the mean squared error on the training data. The smaller it is, the"
            " flatter the network: the less its error rises under small random perturbations of "
            "its weights.",
        ),
        (
            "Orbit minimum",
            "The smallest trace among all networks that come from this one by scaling neurons up"
            " before the activation and down after it, or the reverse. All of them compute the "
            "same function; they are the orbit of the network under this symmetry.",
        ),
        (
            "Lower bound",
            "A number that the trace of no network of the same width with the same outputs on "
            "the training data can be below. It is computed from the data and the outputs alone.",
        ),
        (
            "Ratio",
            "The orbit minimum divided by the lower bound; 1 or more. A network of ratio 1.25 is"
            " within a factor of 1.25 of the flattest that is possible.",
        ),
        (
            "Interpolator",
            "A network that fits the training data exactly. The flattest interpolator is the one"
            " of least trace.",
        ),
        (
            "Multi-index model",
            Markup(
                "The truth behind the synthetic data: a function of <em>k</em> directions of the"
                " input, few beside its <em>d</em> features; here a sum of functions of one "
                "direction each, its links."
            ),
        ),
        (
            "Population loss, test error",
            "The mean squared error on new data without noise, divided by the variance of the "
            "truth: 0 for the truth itself, 1 for the best constant.",
        ),
        (
            "Recovery",
            "A test error of zero up to rounding: the network has found the truth.",
        ),
        (
            "Seed",
            Markup(
                "The number from which the data and the start of a trial are drawn at random. "
                "<em>n</em> is the number of training samples."
            ),
        ),
    ),
)
"""The cover of the claims of the source paper."""
