"""
Watch flatness during training
==============================

``FlatnessMonitor`` measures a network every so many steps on one probe batch. The training goes
on as if nobody had looked: modes, gradients and random numbers are put back. What the looking
takes is measured too. The same monitor works as a callback of Lightning and of the Trainer of
transformers.
"""

# %%
# Two learning rates
# ------------------

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from flattest.integrations import FlatnessMonitor

torch.manual_seed(0)
images, classes = load_digits(return_X_y=True)
order = torch.randperm(len(images))
X = torch.from_numpy(images).float().reshape(-1, 1, 8, 8)[order] / 16
y = torch.from_numpy(classes)[order]


def watched(rate):
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )
    monitor = FlatnessMonitor(*(X[:64], y[:64]), loss="cross_entropy", symmetry="scales", every=250)
    monitor.measure(net)  # before the first step: what is wrong shows now
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    for _ in range(1500):
        some = torch.randint(0, len(X), (64,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(X[some]), y[some]).backward()
        optimiser.step()
        monitor.step(net)
    print(f"learning rate {rate}: {monitor.summary()}")
    return monitor.table()


runs = {rate: watched(rate) for rate in (0.01, 0.05)}

# %%
# The readings are a table. Besides figures they have the cost, which on a network as small as this
# is mostly that of finding the symmetries anew each time: the share falls with the size of the
# network, and with ``every``.

print(runs[0.05].iloc[[0, 1, 3, 6]].T.to_string(float_format="{:.3g}".format))

# %%
# The trace, and its part that no rescaling takes away
# ----------------------------------------------------

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
for ax, (rate, table) in zip(axes, runs.items(), strict=True):
    ax.plot(table.index, table["trace"], "o-", color="#6b6b6b", label="trace")
    ax.plot(table.index, table["orbit_minimum"], "o-", color="#0072B2", label="orbit minimum")
    ax.plot(table.index, table["loss"], "--", color="#D55E00", label="loss of the probe batch")
    ax.set(yscale="log", xlabel="step")
    ax.set_title(f"Flatness during training, learning rate {rate}")
axes[0].legend(frameon=False)
plt.show()

# %%
# To a file, to TensorBoard
# -------------------------
#
# ``FlatnessMonitor(..., loggers=["flatness.csv", SummaryWriter("runs/one")])`` writes each reading
# there as well, and functions of (figures, step) are called. In Lightning and in transformers the
# callbacks hand the readings to the logger in use:
#
# .. code-block:: python
#
#     from flattest.integrations.lightning import FlatnessCallback
#
#     trainer = Trainer(callbacks=[FlatnessCallback(monitor)])
#
# .. code-block:: python
#
#     from flattest.integrations.transformers import FlatnessCallback
#
#     trainer.add_callback(FlatnessCallback(monitor, log=trainer.log))
