"""Two-layer homogeneous networks: all that is known of them in closed form.

`networks` holds the networks, `activations` the positively homogeneous functions, `closed_form`
the one pass over the data that sums everything, `bounds` what no network of a width can go below,
`symmetry` and `surgery` the changes that keep the function, `measuring` and `flatness` the
measurement and its result.
"""
