"""The symmetries of any module: scales of its channels, and matrices between linear factors.

`finding` is the way through, from an `example` of the inputs. `tracing` turns the module into a
graph of elementary operations. `propagation` walks it with a label for every entry of every tensor
(`labels`), by the table of `rules`, whose functions are in `elementwise`, `contraction`,
`normalisation` and `rearrangement` and work on a `walk`. What they demand of the channels' log
scales is collected and solved by `equations`. `parameters` notes how each entry of a parameter
scales, and `assembly` makes of it a `scaled_tensor` for each, besides an `affine_shift` for some
biases; `dead_scales` are those that nothing balances.

`coordinates` walks the graph once more for what passes through linear maps only
(`coordinate_products`, `coordinate_uses`), and `linear_pairs` makes of it the factors between which
matrices move, each a `linear_group`. `batch_norm` folds normalisation into what comes before.

`result` holds what was found, with a table of `layers`; `transforming` applies it to a copy of the
module, and `checking` compares the outputs.
"""
