"""From a table in a file to a fitted model in a file.

A file becomes a table of text cells (`texts`), or a frame of typed columns for Parquet (`reading`,
with `decoding` and `delimited`). What each column means is learnt once, from the training table
(`learning`, with `cells`, `decimals` and `dates`), and remembered as one object per column
(`columns`). `choosing` leaves columns without use out and fills gaps (`missing`); the rest is an
`encoding`, which turns any row into the same features ever after. `preparing` is all of this up to
the first number, with what looks wrong (`suspicions`), without torch and for text without pandas,
so that every fault of a file (`faults`) is said at once; `fit` goes on from there, `saved_model`
keeps the result (in a `model_file`) and predicts without torch, `saved_network` measures its
network, and `transformer` is the encoding for people with a frame of their own.
"""
