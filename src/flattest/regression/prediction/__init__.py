"""What predicts from a fit: NumPy alone, since PyTorch takes longer to load than to predict with.

A fit is turned into arrays once (`flattest.regression.handover`), and a model file holds the same
arrays. A `predictor` has a `network` on standardised features (`standardisation`) and, where
processes predict, their `link`. A link pulls inputs back to its `limits` and averages, in the units
of the targets and of their logarithms (`target_scale`), `average`s of processes: each is a `prior`
with its `kernels`, `conditioned` on rows. The network's outputs count as observations of the
function, and every target gets a law (`predictive`).
"""
