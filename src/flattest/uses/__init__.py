"""What flatness modulo symmetry is good for on trained networks, measured, whatever it says.

Four questions in six parts, each a :class:`flattest.study.Claim` as those of the theory are, and
run by the same machinery: `noise` on weights; `rounding` to few bits, with `mixed_precision`; which
of several networks generalises better, in `ranking_mlps` and `ranking_transformers`; and what
flattens while `training`. Every part has a settings class, a pure trial function, verdicts, a table
and a figure.

All networks are small and trained here: `digits` are the data, `networks` the architectures,
`fitting` trains them, `versions` makes networks of one function from one, and `divergence` compares
predictions. `trajectories` lays out what is ranked, `measures` takes all that may foretell the gap,
`rank_correlation` has the coefficients, and `ranking` judges and draws.
"""

from flattest.study import Claim
from flattest.study.cover import Cover
from flattest.uses import (
    mixed_precision,
    noise,
    ranking_mlps,
    ranking_transformers,
    rounding,
    training,
)

__all__ = ["COVER", "USES"]

_PARTS = (noise, rounding, mixed_precision, ranking_mlps, ranking_transformers, training)
USES: dict[str, Claim] = {part.CLAIM.name: part.CLAIM for part in _PARTS}
"""The parts by name, in the order of the report."""

COVER = Cover(
    command="uses",
    noun="part",
    title="What flatness is good for, measured",
    lead=(
        "The trace of the Hessian of the training loss says how much noise on the weights costs, "
        "and is said to tell which networks generalise. Scaling the units of a network changes it "
        "at will and no output. This page measures on trained networks what the trace, and its "
        "minimum over all that leaves the outputs alone, foretell: of noise, of rounding, of test "
        "errors, and of training. Every verdict is computed from the records of the experiments."
    ),
    terms=(
        (
            "Flatness, trace",
            "The trace of the Hessian (the sum of the second derivatives by every parameter) of "
            "the mean loss on training samples. The smaller it is, the flatter the network.",
        ),
        (
            "Orbit minimum",
            "The smallest trace among all networks that come from this one by changes of its "
            "parameters that no output shows: scales of hidden units and, in transformers, "
            "invertible matrices between linear maps. A network at its minimum is called balanced.",
        ),
        (
            "Divergence",
            "The mean Kullback-Leibler divergence of the class probabilities after a change of "
            "the weights from those before, in nats.",
        ),
        (
            "Generalisation gap",
            "The error on test samples less that on training samples.",
        ),
        (
            "Trajectory",
            "A sequence of networks in which one hyper-parameter changes at a time. The seeds of "
            "the ranking parts are trajectories.",
        ),
        (
            "Seed",
            "The number from which data, start and minibatches of a trial are drawn at random.",
        ),
    ),
)
