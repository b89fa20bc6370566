"""
A table: directions, links and intervals
========================================

``MultiIndexRegressor`` looks for the few combinations of the columns that matter, how many they
are, and what the target does along them. Predictions come with intervals.
"""

# %%
# A table
# -------
#
# The strength of a beam, made up: it depends on the thickness and the width through one
# combination, on temperature and humidity through another, and on nothing else. A column of text
# and gaps are there as in tables that one is given.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

import flattest as ft

rng = np.random.default_rng(0)
n = 500
table = pd.DataFrame(
    {
        "thickness": rng.normal(20, 3, n),
        "width": rng.normal(80, 10, n),
        "temperature": rng.uniform(5, 35, n),
        "humidity": rng.uniform(0.2, 0.9, n),
        "supplier": rng.choice(["north", "south"], n),
        "age": rng.exponential(4, n),
    }
)
size = (table["thickness"] - 20) / 3 + (table["width"] - 80) / 10
climate = (table["temperature"] - 20) / 9 + (table["humidity"] - 0.55) / 0.2
strength = 30 + 4 * size + 3 * np.abs(climate) + rng.normal(0, 0.5, n)
table.loc[rng.choice(n, 10, replace=False), "age"] = np.nan

# %%
# Fit
# ---

model = make_pipeline(ft.TableEncoder(), ft.MultiIndexRegressor(random_state=0))
model.fit(table[:200], strength[:200])
regressor = model[-1]
score = model.score(table[200:], strength[200:])
print(f"{regressor.n_directions_} directions, R2 on new rows {score:.3f}")

# %%
# Directions
# ----------
#
# What makes up each direction, with its share in the function.

k = regressor.n_directions_
fig, axes = plt.subplots(1, k, figsize=(8, 3.6), squeeze=False, sharey=True)
fig.set_layout_engine("constrained")
ft.DirectionsDisplay.from_estimator(model, ax=axes.ravel())
fig.suptitle("What makes up the directions found")
plt.show()

# %%
# Links
# -----
#
# What the target does along each of them.

k = regressor.n_directions_
fig, axes = plt.subplots(1, k, figsize=(8, 3.6), squeeze=False)
fig.set_layout_engine("constrained")
seen = table[:200], strength[:200]
ft.LinkDisplay.from_estimator(model, *seen, target_name="strength", ax=axes.ravel())
fig.suptitle("The strength along the directions found")
plt.show()

# %%
# Intervals
# ---------
#
# On the 300 rows that were not used, and how many of these the intervals of 90 % contain; the
# figure shows sixty.

encoded = model[:-1].transform(table[200:])
mean, deviation = regressor.predict(encoded, return_std=True)
low, high = mean - 1.645 * deviation, mean + 1.645 * deviation
truth = strength[200:].to_numpy()
print(f"{np.mean((low <= truth) & (truth <= high)):.0%} of the new rows lie in their intervals")
order = np.argsort(mean[:60])
ahead = (truth - mean)[order]
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.vlines(np.arange(60), (low - mean)[order], (high - mean)[order], color="#56B4E9", lw=3)
ax.plot([], [], color="#56B4E9", lw=3, label="90 % interval")
ax.plot(ahead, "o", color="#D55E00", ms=4, label="strength")
ax.set(xlabel="new rows, by prediction", ylabel="strength less prediction")
ax.set_title("Intervals of sixty rows that were not used, and the truth")
ax.legend(frameon=False)
plt.show()
