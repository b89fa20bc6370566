"""A claim: a question, the trials that answer it, a figure, and verdicts with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from flattest.study.verdict import Verdict

Size = Literal["quick", "full"]


@dataclass(frozen=True)
class Design:
    """What is run: every settings with each of the seeds 0, 1, ....

    Parameters
    ----------
    settings : tuple
        Instances of the claim's settings dataclass, one per cell of the experiment.
    n_seeds : int
        The number of trials per cell.
    time_limit : float
        Seconds after which a trial is given up and recorded as such.

    Examples
    --------
    >>> from flattest.study import CLAIMS
    >>> CLAIMS["symmetry"].quick.n_seeds >= 5
    True
    """

    settings: tuple[Any, ...]
    n_seeds: int
    time_limit: float = 600.0


@dataclass(frozen=True)
class Claim:
    """A claim of the source paper, or a known limit of it, with the experiment that tests it.

    The texts are read by people who do not know the paper; they state what was done, never how it
    came out. That is computed from the records.

    Parameters
    ----------
    name : str
        The name on the command line.
    title : str
        A heading.
    question : str
        What is asked and why it matters, in a paragraph.
    method : str
        What is run: data, networks, what is measured.
    limits : str
        What the experiment does not show.
    source : str
        Where the claim comes from.
    trial : callable
        ``trial(settings, seed)`` returns one flat record; pure, and importable by name.
    quick, full : Design
        What ``reproduce --quick`` and ``--full`` run.
    verdicts : callable
        From the records to the verdicts. The records are a data frame with the fields of the
        settings, `seed`, and the fields of the trial's record, for the trials that succeeded.
    figure : callable
        From the records to a figure.
    caption : str
        What the figure shows, in a sentence or two.
    table : callable, optional
        From the records to a data frame of what was measured, where the verdicts do not say it all.
    thresholds : str
        Who set the thresholds of the verdicts, and why there.
    conclusion : callable, optional
        From the records to a sentence or two with the figures that matter most, which stand above
        the verdicts; empty where the records do not give them.

    Examples
    --------
    >>> from flattest.study import CLAIMS
    >>> CLAIMS["symmetry"].title
    'One function, any trace'
    """

    name: str
    title: str
    question: str
    method: str
    limits: str
    source: str
    trial: Callable[[Any, int], dict[str, Any]]
    quick: Design
    full: Design
    verdicts: Callable[[pd.DataFrame], Sequence[Verdict]]
    figure: Callable[[pd.DataFrame], Figure]
    caption: str
    table: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    thresholds: str = ""
    conclusion: Callable[[pd.DataFrame], str] | None = None

    @property
    def reference(self) -> str:
        """The trial function as ``"package.module:function"``."""
        return f"{self.trial.__module__}:{self.trial.__qualname__}"

    def design(self, size: Size) -> Design:
        """Return what is run.

        Parameters
        ----------
        size : {"quick", "full"}
            How much of it.

        Returns
        -------
        Design
            `quick` or `full`.
        """
        return {"quick": self.quick, "full": self.full}[size]
