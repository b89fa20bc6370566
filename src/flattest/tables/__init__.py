"""From a table in a file to a fitted model in a file: reading, encoding, fitting, saving."""
