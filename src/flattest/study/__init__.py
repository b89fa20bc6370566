"""The study: every claim as an experiment, and the report on all of them."""

from flattest.errors import require

require("jinja2", extra="study", purpose="The report of the study")

from flattest.study.claim import Claim, Design
from flattest.study.claims import CLAIMS
from flattest.study.verdict import Verdict, judge, judge_share

__all__ = ["CLAIMS", "Claim", "Design", "Verdict", "judge", "judge_share"]
