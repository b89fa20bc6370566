"""Exact sums of squared per-sample gradients, by the autograd graph of a module's outputs.

`graph` finds the uses of every parameter, `rules` is the table of closed forms by kind of node
(one file per family: `linear`, `convolution`, `normalisation`, `elementwise`, `embedding`), which
return `contributions` in the `layouts` they are told. `one_tensor` adds them up over all uses of a
tensor before squaring, and `forms` are what is kept of single gradients besides; `ways` takes all
tensors together with one batched backward pass, or goes sample by sample; `bottleneck` narrows the
columns down behind a wide last layer; `calibration` decides which way is right; `accumulation` sums
over a data set.
"""
