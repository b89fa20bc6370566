"""Settings for property-based tests: reproducible, and no deadline on a shared machine; Ctrl-C."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "flattest",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", parent=settings.get_profile("flattest"), max_examples=2000)
settings.load_profile("flattest")

collect_ignore = ["installed_wheel.py"]  # a script for an environment that has the wheel only


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """Let Ctrl-C interrupt, which shells have jobs in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
