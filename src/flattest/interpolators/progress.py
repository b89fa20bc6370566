"""Progress of an interpolator on the terminal, with an estimate of the time left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from flattest.interpolators.result import Iterate, Problem


@contextmanager
def progress(problem: Problem, title: str, verbose: bool) -> Iterator[Problem]:
    """Let the problem report to a progress bar while the context lasts, if `verbose`.

    Parameters
    ----------
    problem : Problem
        The problem.
    title : str
        Printed before the bar.
    verbose : bool
        Whether to show anything.

    Yields
    ------
    Problem
        The problem with its `report` connected.
    """
    if not verbose:
        yield problem
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("train error {task.fields[error]:.1e}  trace {task.fields[trace]:.5g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=None, error=float("nan"), trace=float("nan"))

        def report(entry: Iterate, expected: int) -> None:
            bar.update(
                task,
                total=max(expected, entry.iteration + 1),
                completed=entry.iteration + 1,
                error=entry.train_error,
                trace=entry.orbit_minimum,
            )

        yield dataclasses.replace(problem, report=report)
