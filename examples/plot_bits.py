"""
How many bits for each layer?
=============================

Rounding a weight raises the loss by about half its trace per entry times the squared rounding
error. ``allocate_bits`` spends a budget of bits accordingly. The traces have to be right for
that: here they are exact, or as noisy as three probes of Hutchinson's estimator make them, or not
used at all.
"""

# %%
# A network
# ---------

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from digits_training import accuracy, digits, train
from torch import nn

import flattest as ft

torch.manual_seed(0)
X, y, X_test, y_test = digits()
net = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    *(nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
)
net = train(net, X, y, epochs=8)
flatness = ft.measure(net, X, y, loss="cross_entropy")
print(f"accuracy {accuracy(net, X_test, y_test):.1%}, {flatness.n_parameters:,} parameters")

# %%
# Bits from exact traces
# ----------------------

exact = ft.allocate_bits(flatness, net, budget=4, bits=range(2, 9))
print(exact)

# %%
# The same from noisy traces
# --------------------------
#
# Three probes each: a product of the Hessian with random signs gives one estimate of every layer's
# trace. Twenty repetitions show what they lead to.

parameters = dict(net.named_parameters())
value = nn.functional.cross_entropy(net(X), y)
gradient = torch.autograd.grad(value, parameters.values(), create_graph=True)


def noisy(probes=3):
    """Return the measurement with estimated traces in place of the exact ones."""
    totals = dict.fromkeys(parameters, 0.0)
    for _ in range(probes):
        signs = [torch.randint(0, 2, p.shape).float() * 2 - 1 for p in parameters.values()]
        products = torch.autograd.grad(gradient, parameters.values(), signs, retain_graph=True)
        for name, v, h in zip(parameters, signs, products, strict=True):
            totals[name] += (v * h).sum().item() / probes
    layers = tuple(
        layer._replace(trace=max(totals[layer.name], 0), gauss_newton=max(totals[layer.name], 0))
        for layer in flatness.layers
    )
    return replace(flatness, layers=layers)


def loss_of(bits):
    with torch.no_grad():
        return nn.functional.cross_entropy(ft.quantise(net, bits)(X), y).item()


budgets = (3.5, 4, 5, 6)
drawn = [noisy() for _ in range(20)]
losses = {"exact traces": [], "three probes": []}
for budget in budgets:
    for key, measurements in (("exact traces", [flatness]), ("three probes", drawn)):
        chosen = [
            ft.allocate_bits(found, net, budget=budget, bits=range(2, 9)) for found in measurements
        ]
        losses[key].append([loss_of(dict(bits)) - value.item() for bits in chosen])
uniform = {bits: loss_of(bits) - value.item() for bits in (4, 5, 6)}

# %%
# What rounding costs
# -------------------
#
# Each dot is a choice made from three probes, at the same average number of bits.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for budget, rises in zip(budgets, losses["three probes"], strict=True):
    jitter = budget + np.linspace(-0.06, 0.06, len(rises))
    ax.plot(jitter, rises, ".", color="#56B4E9")
ax.plot([], [], ".", color="#56B4E9", label="bits from three probes, twenty times")
ax.plot(uniform.keys(), uniform.values(), "s--", color="#6b6b6b", label="the same for all")
ax.plot(
    budgets, [r[0] for r in losses["exact traces"]], "o-", color="#D55E00", label="exact traces"
)
ax.set(yscale="log", xlabel="average bits of a weight", ylabel="rise of the training loss")
ax.set_title("What rounding costs: bits from exact traces, noisy ones, uniform")
ax.legend(frameon=False)
plt.show()

# %%
# The choice from exact traces is the best one to second order; at few bits, where second order
# ends, another may do better. Give ``loss_of`` to ``allocate_bits`` there: it rounds every weight
# alone and measures.
