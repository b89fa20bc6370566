"""What is printed of a fit: how well it predicts, what it is, on what it depends; flatness last."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from flattest.tables.result import TableFit

_MOST_WEIGHTS, _MOST_FEATURES = 5, 8
_FEW_ROWS = 300
_RATIO = (
    "Orbit minimum: least trace among all rescalings of the network. Lower bound: on the trace of "
    "every network of this width with the same outputs. Ratio: their quotient. All on standardised "
    "features."
)


def fit_summary(fit: TableFit, *, brief: bool = False) -> RenderableType:
    """Present a fitted table.

    Parameters
    ----------
    fit : TableFit
        The fit.
    brief : bool
        Whether to leave out on what it depends, and flatness.

    Returns
    -------
    RenderableType
        To be printed on a console.
    """
    from rich.console import Group
    from rich.text import Text

    from flattest.tables.page import coverage_sentence, ridge_sentence
    from flattest.wording import count

    words = fit.description
    parts: list[RenderableType] = [_quality(fit)]
    if ridge := ridge_sentence(fit):
        parts.append(Text(ridge, style="bold"))
    if coverage := coverage_sentence(fit):
        parts.append(Text(coverage))
    if not brief and not fit.cross_validated and sum(fit.n_rows.values()) < _FEW_ROWS:
        parts.append(Text("The test rows are few: --cv judges by all rows.", style="dim"))
    parts += [Text(""), Text(words.sentence, style="bold")]
    parts += [Text(words.noise)] if words.noise else []
    parts.append(Text(""))
    if brief:
        return Group(*parts)
    if fit.n_shown:
        parts += [_directions(fit), _importances(fit)]
    else:
        parts.append(Text("No direction was found: the prediction is constant.", style="yellow"))
    if fit.n_dropped:
        parts.append(Text(f"{count(fit.n_dropped, 'row')} without all values left out."))
    if fit.unused:
        unused = ", ".join(repr(name) for name in fit.unused)
        parts.append(Text(f"Columns not used: {unused}."))
    parts += [Text(f"Note: {note}", style="yellow") for note in fit.notes]
    parts += [_flatness(fit), Text(words.network), Text("")]
    return Group(*parts)


def _quality(fit: TableFit) -> Table:
    """Compare scores, on rows that the fits had not seen."""
    from flattest.commands.terminal import new_table
    from flattest.tables.page import interval_text, r2_text
    from flattest.wording import number

    table = new_table(f"Prediction of {fit.target}: {fit.judged_on}", "")
    for heading in ("R²", "95 % interval", "RMSE", "training R²", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, judged in fit.judged.items():
        test, train = judged.scores["test"], judged.scores["train"]
        cells = r2_text(test.r2), interval_text(test), number(test.rmse), r2_text(train.r2)
        table.add_row(name, *cells, f"{judged.seconds:.1f}")
    return table


def _directions(fit: TableFit) -> Table:
    from rich.text import Text

    from flattest.commands.terminal import new_table
    from flattest.tables.page import hidden_sentence
    from flattest.wording import count

    d, k, model = len(fit.feature_names), fit.n_shown, fit.model
    if fit.description.all_matter:
        title = "All features matter; predictions vary most along these directions"
    else:
        title = f"{count(k, 'leading direction')} of {count(d, 'feature')}"
    table = new_table(title, "", caption=hidden_sentence(fit))
    table.add_column("importance", justify="right")
    table.add_column("weights per standard deviation", ratio=1)
    for index in range(k):
        loading = model.loadings[index]
        order = sorted(range(d), key=lambda i: -abs(loading[i]))[:_MOST_WEIGHTS]
        weights = [f"{loading[i]:+.2f}\u00a0{fit.feature_names[i]}" for i in order]
        row = Text("  ").join(Text(weight, no_wrap=False) for weight in weights)
        table.add_row(f"{index + 1}", f"{model.importances[index]:.0%}", row)
    return table


def _importances(fit: TableFit) -> Table:
    from flattest.commands.terminal import new_table

    names, shares = fit.feature_names, fit.feature_importances
    order = sorted(range(len(names)), key=lambda i: -shares[i])[:_MOST_FEATURES]
    more = len(names) - len(order)
    table = new_table("Importance of the features", "", caption=f"and {more} more" * bool(more))
    table.add_column("share", justify="right")
    for i in order:
        table.add_row(names[i], f"{shares[i]:.0%}" if shares[i] >= 0.005 else "<1%")
    return table


def _flatness(fit: TableFit) -> Table:
    from flattest.commands.terminal import new_table
    from flattest.wording import number

    flatness = fit.flatness
    table = new_table("Flatness of the network on the training rows", "trace", caption=_RATIO)
    table.columns[0].justify = "right"
    for heading in ("orbit minimum", "lower bound", "ratio", "neurons", "penalty"):
        table.add_column(heading, justify="right")
    table.add_row(
        number(flatness.trace),
        number(flatness.orbit_minimum),
        number(flatness.lower_bound),
        number(flatness.ratio),
        str(flatness.width),
        number(fit.strength),
    )
    return table
