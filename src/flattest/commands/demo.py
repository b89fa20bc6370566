"""`flattest demo`: the main job on synthetic and on real data, and what is printed of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flattest._version import __version__
from flattest.commands.errors import INTERRUPTED, one_sentence_errors, say
from flattest.commands.options import Seed

if TYPE_CHECKING:
    from rich.table import Table

    from flattest.commands.demonstration import Record
    from flattest.tables.result import TableFit

_EXPECTED_SECONDS = {"gradient descent": 3.0, "flattest": 1.0, "nuclei": 20.0, "diabetes": 6.0}


@one_sentence_errors
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go.")] = Path(
        "flattest-demo"
    ),
    random_state: Seed = 0,
) -> None:
    """Show the main job on synthetic and on real data.

    In about a minute: fits one synthetic training set exactly in several ways, and shows that the
    trace of the Hessian says nothing about the population loss while its minimum over rescalings
    does. Then fits two tables of scikit-learn, beside ridge regression and boosted trees: one of
    which few directions are the truth, and one where a linear function does as well. Tables and
    figures go to --out, in place of those of an earlier demo.
    """
    from rich.console import Console

    from flattest.commands.demonstration import (
        compare_interpolators,
        interpolator_names,
        real_tables,
    )
    from flattest.commands.fit_summary import fit_summary
    from flattest.commands.terminal import Steps, standard_error
    from flattest.files import check_output_folder, output_folder, write_report
    from flattest.tables.fit import fit_table
    from flattest.tables.reading import read_table
    from flattest.threads import one_thread

    check_output_folder(out, force=True)
    started = time.perf_counter()
    steps = {
        name: _EXPECTED_SECONDS["flattest" if name == "flattest" else "gradient descent"]
        for name in interpolator_names()
    }
    tables = real_tables()
    fit_steps = {name: f"{name} table" for name in tables}
    steps |= {step: _EXPECTED_SECONDS.get(name, 6.0) for name, step in fit_steps.items()}
    records: list[Record] = []
    fits: dict[str, TableFit] = {}
    with one_thread(), output_folder(out, force=True) as folder:
        try:
            with Steps(standard_error(), steps).shown() as progress:
                for group in compare_interpolators(random_state=random_state):
                    records += group
                    progress.finish(group[0].network)
                for name, (table, target) in tables.items():
                    table.to_csv(folder / f"{name}.csv", index=False)
                    read = read_table(folder / f"{name}.csv")  # as anybody's file
                    fits[name] = fit_table(read, target, random_state=random_state)
                    progress.finish(fit_steps[name])
        except KeyboardInterrupt:
            if not records:
                raise
        _write(folder, records, fits)
        seconds = time.perf_counter() - started
        complete = len(fits) == len(tables)
        report = {"kind": "demo", "random_state": random_state, "complete": complete}
        rows = [record.to_dict() for record in records]
        write_report(
            folder, {**report, "seconds": seconds, "flattest": __version__, "networks": rows}
        )
    console = Console()
    console.print(networks_table(records))
    console.print(correlations_line(records))
    for index, fit in enumerate(fits.values()):
        console.print(fit_summary(fit, brief=index > 0))
    if not complete:
        say(f"Interrupted; what was finished is in {out}.")
        raise typer.Exit(INTERRUPTED)
    console.print(f"{seconds:.0f} s in all. Figures, tables and the model: [bold]{out}[/]")


def _write(folder: Path, records: Sequence[Record], fits: Mapping[str, TableFit]) -> None:
    """Write the networks with their figure, and the fits that were finished."""
    import pandas as pd

    from flattest.figures import loss_against_flatness, save_figure

    networks = pd.DataFrame([record.to_dict() for record in records])
    networks.to_csv(folder / "networks.csv", index=False)
    save_figure(loss_against_flatness(networks), folder / "loss-against-flatness")
    for name, fit in fits.items():
        (folder / name).mkdir()
        fit.write(folder / name)


def networks_table(records: Sequence[Record]) -> Table:
    """Tabulate networks that fit one training set.

    Parameters
    ----------
    records : sequence of Record
        The networks.

    Returns
    -------
    Table
        One row for each network as found, and for the sharpened ones.

    Examples
    --------
    >>> from flattest.commands.demo import networks_table
    >>> networks_table([]).row_count
    0
    """
    from flattest.commands.terminal import new_table
    from flattest.wording import number

    caption = (
        "Test error: on fresh samples, relative to the variance of the true function. Orbit "
        "minimum: least trace among all rescalings. Ratio: its quotient by a lower bound on the "
        "trace of every network that fits."
    )
    table = new_table("One training set, several networks that fit it", "network", caption=caption)
    headings = ("train\nerror", "test\nerror", "trace", "orbit\nminimum", "ratio", "seconds")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        if not record.found and not record.copy.startswith("sharpened"):
            continue
        best = record.found and record.ratio == min(r.ratio for r in records if r.found)
        flag = "" if record.status == "converged" else f" [yellow]({record.status})[/]"
        table.add_row(
            (record.network if record.found else f"  {record.copy}") + flag,
            number(record.train_error),
            number(record.test_error),
            number(record.trace),
            number(record.orbit_minimum),
            number(record.ratio),
            f"{record.seconds:.1f}" if record.found else "",
            style="bold" if best else ("" if record.found else "dim"),
        )
    return table


def correlations_line(records: Sequence[Record]) -> str:
    """Say in a line how the test error goes with the trace and with the orbit minimum.

    Parameters
    ----------
    records : sequence of Record
        The networks, copies included.

    Returns
    -------
    str
        The line.
    """
    from flattest.commands.demonstration import rank_correlations

    found = rank_correlations(records)
    return (
        f"Rank correlation with the test error over {len(records)} networks ("
        f"{sum(r.found for r in records)} functions, the rest rescaled copies): "
        f"trace {found['trace']:.2f}, orbit minimum {found['orbit_minimum']:.2f}.\n"
    )
