"""The minimum of a trace over invertible matrices between two linear maps.

Between value and output projection of an attention head, query and key, or the factors of a
low-rank layer, any invertible matrix can be moved. `pairs` has the closed form for one such group,
from the QR factors of stacked gradients, which `stacked` collects over a data set; `joint` takes
turns between groups and scales. `lora_factors` applies it to an adapter, `lora_files` to
files of them, and `lora` is their public face.
"""
