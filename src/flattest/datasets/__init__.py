"""Data of multi-index models: links, input laws, and sampling."""

from flattest.datasets.multi_index import MultiIndexModel, make_multi_index

__all__ = ["MultiIndexModel", "make_multi_index"]
