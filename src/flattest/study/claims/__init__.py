"""The claims, one module each, in the order of the report.

A module defines a settings dataclass, a pure trial function, a figure, verdicts, and `CLAIM`, which
puts them together. To add one, write such a module and list it here.
"""

from flattest.study.claim import Claim
from flattest.study.claims import symmetry

CLAIMS: dict[str, Claim] = {module.CLAIM.name: module.CLAIM for module in (symmetry,)}
"""The claims by name."""
