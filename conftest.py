"""Leave out what cannot be imported: the hosts of flattest's integrations are an extra."""

from importlib.util import find_spec

_HOSTS = ("laplace", "lightning", "transformers")
collect_ignore = [
    f"src/flattest/integrations/{host}.py" for host in _HOSTS if find_spec(host) is None
]
