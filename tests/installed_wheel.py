"""Try a wheel where nothing else of the repository is: run by `make dist` in an empty folder."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import torch

import flattest as ft

package = Path(ft.__file__).parent
assert package.is_relative_to(sys.prefix), f"{package} is not what was installed"
assert (package / "py.typed").is_file()
assert metadata("flattest")["License-Expression"] == "BSD-3-Clause"
for name in ft.__all__:
    getattr(ft, name)

net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
flatness = ft.measure(net, torch.ones(5, 3), torch.tensor([0, 1, 0, 1, 1]), loss="cross_entropy")
assert flatness.provenance["trace"].exact
assert flatness.residual == 0

X, y, model = ft.make_multi_index(100, 5, ["relu", "-relu"], random_state=0)
found = ft.interpolate(X, y, width=50, random_state=0)
assert found.converged
assert model.relative_error(found.net, random_state=1) < 1e-20

rng = np.random.default_rng(0)
table = rng.uniform(-1, 1, (60, 3))
target = np.abs(table[:, 0] + table[:, 1])
rows = np.column_stack([table, target])
np.savetxt("table.csv", rows, delimiter=",", header="a,b,c,target", comments="")
flattest = str(Path(sys.executable).with_name("flattest"))
commands = ["--versions"], ["fit", "table.csv", "--target", "target", "--out", "fit", "--force"]
for command in (*commands, ["predict", "fit", "table.csv", "--out", "predicted.csv", "--force"]):
    subprocess.run([flattest, *command], check=True)
predicted = np.genfromtxt("predicted.csv", delimiter=",", skip_header=1)
assert len(predicted) == len(rows)
print("The wheel works.")
