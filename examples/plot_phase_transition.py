"""
The flattest interpolator, and when it finds the truth
======================================================

Data that depend on three unknown directions out of twenty, without noise. Many two-layer networks
fit them exactly. From some number of samples on, the flattest of these is the network that made
the data, to machine precision; one trained from a large start never is.
"""

# %%
# Fit
# ---

import matplotlib.pyplot as plt
import numpy as np

import flattest as ft

counts, seeds = (60, 80, 100, 120, 160, 200), range(3)
ways = {
    "flattest": ("flattest", {}),
    "gradient descent from a large start": ("gradient_descent", {"init_scale": 1.0}),
}
errors = {name: np.zeros((len(counts), len(seeds))) for name in ways}
ratios = {name: np.zeros((len(counts), len(seeds))) for name in ways}
for row, n_samples in enumerate(counts):
    for seed in seeds:
        X, y, model = ft.make_multi_index(n_samples, 20, ["relu"] * 3, random_state=seed)
        for name, (method, options) in ways.items():
            found = ft.interpolate(X, y, method, width=80, random_state=seed, **options)
            errors[name][row, seed] = model.relative_error(found.net, random_state=seed)
            ratios[name][row, seed] = found.flatness.ratio

# %%
# Without a test sample
# ---------------------
#
# The orbit minimum over a lower bound for every interpolator tells the two apart from the training
# data alone.

for name in ways:
    line = ", ".join(f"{np.median(ratios[name][row]):.3g}" for row in range(len(counts)))
    print(f"{name}: {line}")

# %%
# The transition
# --------------

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for (name, values), colour in zip(errors.items(), ("#0072B2", "#D55E00"), strict=True):
    shown = np.maximum(values, 1e-30)
    axes[0].plot(counts, shown, "o", color=colour, alpha=0.6)
    axes[0].plot(counts, np.median(shown, 1), color=colour, label=name)
    axes[1].plot(counts, np.median(ratios[name], 1), "o-", color=colour, label=name)
axes[0].set(yscale="log", xlabel="samples", ylabel="relative test error")
axes[0].set_title("Test error of two interpolators")
axes[1].set(yscale="log", xlabel="samples", ylabel="orbit minimum over the bound")
axes[1].set_title("Their flatness, from training data alone")
axes[1].legend(frameon=False)
plt.show()
