"""What the tests and the docstrings' examples of integrations with other packages share."""

from importlib.util import find_spec

import pytest

_HOSTS = ("laplace", "lightning", "transformers")
# The hosts are an extra, and what cannot be imported is left out.
collect_ignore = [
    f"src/flattest/integrations/{host}.py" for host in _HOSTS if find_spec(host) is None
]


@pytest.fixture(autouse=True)
def _no_datasets(request, monkeypatch):
    """Hide the tests' own folder of that name, which Trainer would take for Hugging Face's."""
    if request.node.path.name in ("transformers.py", "test_transformers.py"):
        trainer = pytest.importorskip("transformers.trainer")
        monkeypatch.setattr(trainer, "is_datasets_available", lambda: False)
