"""The claims, one module each, in the order of the report.

A module defines a settings dataclass, a pure trial function, a figure, verdicts, and `CLAIM`, which
puts them together. To add one, write such a module and list it here.
"""

from flattest.study.claim import Claim
from flattest.study.claims import (
    activations,
    algorithms,
    bias,
    claim1,
    claim2,
    inputs,
    phase,
    robustness,
    shattering,
    symmetry,
)

_MODULES = (
    *(symmetry, claim1, claim2, robustness, activations, inputs),
    *(phase, bias, shattering, algorithms),
)
CLAIMS: dict[str, Claim] = {module.CLAIM.name: module.CLAIM for module in _MODULES}
"""The claims by name."""
