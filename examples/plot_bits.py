"""
How many bits for each layer?
=============================

Rounding a weight changes the answers of a network by about half its trace per entry times the
squared rounding error. ``allocate_bits`` spends a budget of bits accordingly. The traces have to be
right for that: here they are exact, or as noisy as one probe of Hutchinson's estimator makes them,
or not used at all.
"""

# %%
# A network
# ---------

from dataclasses import replace

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
    *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    *(nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
)
net = train(net, epochs=8)
flatness = ft.measure(net, X, y, loss="cross_entropy")
print(f"accuracy {accuracy(net):.1%}, {flatness.n_parameters:,} parameters")

# %%
# Bits from exact traces
# ----------------------

exact = ft.allocate_bits(flatness, net, budget=5, bits=range(4, 9))
print(exact)

# %%
# The same from noisy traces
# --------------------------
#
# A product of the Hessian with random signs gives one estimate of every layer's trace. Twenty
# repetitions show what that leads to.

parameters = dict(net.named_parameters())
value = nn.functional.cross_entropy(net(X), y)
gradient = torch.autograd.grad(value, parameters.values(), create_graph=True)


def noisy():
    """Return the measurement with estimated traces in place of the exact ones."""
    signs = [torch.randint(0, 2, p.shape).float() * 2 - 1 for p in parameters.values()]
    products = torch.autograd.grad(gradient, parameters.values(), signs, retain_graph=True)
    found = {
        name: max((v * h).sum().item(), 0.0)
        for name, v, h in zip(parameters, signs, products, strict=True)
    }
    layers = tuple(
        layer._replace(trace=found[layer.name], gauss_newton=found[layer.name])
        for layer in flatness.layers
    )
    return replace(flatness, layers=layers)


# %%
# What rounding costs
# -------------------
#
# The Gauss-Newton matrix of cross-entropy is the second derivative of the divergence of the rounded
# network's probabilities from the network's own, and that is the cost here. It is averaged over
# images that were not used. Steps are one per output channel, for which the bits were chosen.

with torch.no_grad():
    right = net(X_test).log_softmax(1)


def divergence(bits):
    with torch.no_grad():
        rounded = ft.quantise(net, bits, per_channel=True)(X_test).log_softmax(1)
        return (right.exp() * (right - rounded)).sum(1).mean().item()


def costs(measurements, budget):
    chosen = (ft.allocate_bits(m, net, budget=budget, bits=range(4, 9)) for m in measurements)
    return [divergence(dict(bits)) for bits in chosen]


budgets = (4.5, 5, 6, 7)
drawn = [noisy() for _ in range(20)]
from_probes = [costs(drawn, budget) for budget in budgets]
from_exact = [costs([flatness], budget)[0] for budget in budgets]
uniform = {bits: divergence(bits) for bits in (5, 6, 7)}

# %%
# Each dot is a choice made from one probe, at the same average number of bits.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for budget, found in zip(budgets, from_probes, strict=True):
    ax.plot(budget + np.linspace(-0.06, 0.06, len(found)), found, ".", color="#56B4E9")
ax.plot([], [], ".", color="#56B4E9", label="bits from one probe, twenty times")
ax.plot(uniform.keys(), uniform.values(), "s--", color="#6b6b6b", label="the same for all")
ax.plot(budgets, from_exact, "o-", color="#D55E00", label="bits from exact traces")
ax.set(yscale="log", xlabel="average bits of a weight", ylabel="divergence")
ax.set_title("What rounding costs: bits from exact traces, noisy ones, uniform")
ax.legend(frameon=False)
plt.show()

# %%
# Below four bits second order ends. ``allocate_bits`` says so, and takes a function ``loss_of``
# there: every weight is rounded alone, and what that costs is measured.
