"""The minimum of a trace over the scales of a network: numbers only, no modules.

Scaling hidden units by ``exp(z)`` multiplies entry ``e`` of the parameters by ``exp(c_e . z)`` and
its entry of the Gauss-Newton diagonal by ``exp(-2 c_e . z)``, so that the trace becomes a sum of
exponentials, which is convex in ``z``. `terms` holds such sums. `surviving` finds the terms that
do not vanish in the infimum, and so whether it is attained. `newton` minimises what survives and
bounds the error from below by a dual point; `minimum` ties these together. `rounding_noise` does
the same for the noise of rounding to few bits, where maxima of weights enter: `coupled_layers`
makes variables and inequalities of them, under which `interior_point` minimises, with the linear
systems of `strong_couplings`. `equalisation` is the older heuristic for that, and `nearly_dead`
tells which units are better left where they are.
"""
