"""Every example of the gallery runs as it is, in a process of its own, and draws what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = {path.stem.removeprefix("plot_"): path for path in sorted(EXAMPLES.glob("plot_*.py"))}
# Under ten seconds on one core; `make examples` and `make slow` run the others.
QUICK = {"sweep"}
COUNTING = """
import runpy, sys, warnings
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
titles = []
plt.show = lambda: (titles.append([a.get_title() for n in plt.get_fignums()
                                   for a in plt.figure(n).axes]), plt.close("all"))
runpy.run_path(sys.argv[1], run_name="__main__")
print("FIGURES", len(titles), all(any(each) for each in titles))
"""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SCRIPTS],
)
def test_an_example_runs(name, tmp_path):
    if name == "sweep":
        pytest.importorskip("distributed")
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, str(SCRIPTS[name])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    shown = SCRIPTS[name].read_text(encoding="utf-8").count("plt.show()")
    assert shown > 0
    # A figure's titles are its text for those who do not see it.
    assert re.search(rf"^FIGURES {shown} True$", done.stdout, re.MULTILINE), done.stdout


def test_all_examples_of_the_list_are_there():
    assert len(SCRIPTS) == 9
    for path in SCRIPTS.values():
        text = path.read_text(encoding="utf-8")
        assert re.match(r'"""\n.+\n=+\n\n', text), f"{path.name} has no title"
