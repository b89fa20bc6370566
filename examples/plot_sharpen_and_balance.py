"""
One function, sharp and flat
============================

Dinh et al. (2017) showed that the trace of the Hessian says nothing by itself: scale the channels
of one layer up and those of the next one down, and a ReLU network computes the same function,
while the trace becomes as large as one likes. ``sharpen`` does that to any module, ``balance``
goes to the network of least trace with these outputs, and the *orbit minimum* is the same for all
of them.
"""

# %%
# A convolutional network, trained on the digits of scikit-learn
# --------------------------------------------------------------

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import flattest as ft

torch.manual_seed(0)
images, classes = load_digits(return_X_y=True)
order = torch.randperm(len(images))
X = torch.from_numpy(images).float().reshape(-1, 1, 8, 8)[order] / 16
y = torch.from_numpy(classes)[order]
X, X_test, y, y_test = X[:1347], X[1347:], y[:1347], y[1347:]


def train(net, epochs):
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    net.train()
    for _ in range(epochs):
        for some in torch.randperm(len(X)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(X[some]), y[some]).backward()
            optimiser.step()
    return net.eval()


def accuracy(net):
    with torch.no_grad():
        return (net(X_test).argmax(1) == y_test).float().mean().item()


net = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
    *(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
)
net = train(net, epochs=12).double()
X, X_test = X.double(), X_test.double()
some, labels = X[:500], y[:500]

# %%
# What can be scaled
# ------------------

print(ft.symmetries(net, some[:8]))

# %%
# Sharp and flat twins
# --------------------

sharp = ft.sharpen(net, 1e4, some)
flat = ft.balance(sharp, some, labels, loss="cross_entropy")
networks = {"trained": net, "sharpened": sharp, "balanced": flat}
measured = {
    name: ft.measure(each, some, labels, loss="cross_entropy", symmetry="scales")
    for name, each in networks.items()
}
print(f"{'':10} {'trace':>10} {'orbit minimum':>14} {'accuracy':>9}  outputs differ by")
for name, each in networks.items():
    found = measured[name]
    change = (each(X_test) - net(X_test)).abs().max().item()
    print(
        f"{name:10} {found.trace:10.4g} {found.orbit_minimum:14.8g} "
        f"{accuracy(each):9.1%}  {change:.0e}"
    )

# %%
# The three networks give the same answers, and their traces differ by orders of magnitude. The
# figure shows where the trace sits: in a balanced network no layer can trade with the next one.

names = [layer.name for layer in measured["trained"].layers if layer.name.endswith("weight")]
places = np.arange(len(names))
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for shift, (name, found), colour in zip(
    (-0.27, 0, 0.27), measured.items(), ("#6b6b6b", "#D55E00", "#0072B2"), strict=True
):
    traces = {layer.name: layer.trace for layer in found.layers}
    ax.bar(places + shift, [traces[layer] for layer in names], 0.25, color=colour, label=name)
ax.set(yscale="log", ylabel="trace of the layer", xticks=places, xticklabels=names)
ax.set_title("Trace by layer: a trained network, and two with its outputs")
ax.legend(frameon=False)
plt.show()
