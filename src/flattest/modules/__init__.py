"""The flatness of any PyTorch module, which comes back as it was.

`measuring` ties the parts together. `settings` checks options. `data` turns what callers have into
batches (`trees`: however they are nested), `calls` calls the module, and `outputs` finds the logits
in what it returns. `parameters` chooses what is measured, `guards` puts everything back, with
`embedding_bags` taken apart meanwhile. `watching` shows the progress and hears Ctrl-C.

`summation` goes through the batches, each of which is a `part` of the loss. `losses` evaluates the
caller's loss and weighs batches by its normaliser. `curvature` finds the form of its second
derivative in the logits, and `output_hessian` takes that apart into columns, of which `sampling`
draws some where there are many. `columns` goes through a batch in micro-batches, whose size
`memory` may bound, and `squared_gradients` sums the squared gradients: the Gauss-Newton part.
`linearity` proves for which parameters that is all of the Hessian trace, and `residual` measures
the rest. `products` with whole matrices give the Fisher-Rao norm and the largest `eigenvalue`.
`results` tabulates.

`symmetry` finds the changes of parameters that no output shows: scales and linear groups.
`orbit_minimum` and `group_minimum` bring them and the measured figures together, and leave the
numbers to `balancing` and `groups`; `moving` takes a module to the minimum, or away from it, and
writes a `balance_report`.
"""
