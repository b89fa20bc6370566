"""Numbers below the normal range are 0 where that is asked for, and nowhere else."""

import pytest
import torch

from flattest.regression.denormals import no_denormals

TINY = torch.full((3,), 1e-39)


def _doubled() -> float:
    return float((TINY * 2).to(torch.float64).sum())


def test_denormals_are_0_inside_only() -> None:
    before = _doubled()
    with no_denormals():
        inside = _doubled()
        with no_denormals():
            pass
        assert _doubled() == inside
    assert _doubled() == before == pytest.approx(6e-39, rel=1e-5)
    supported = torch.set_flush_denormal(True)
    torch.set_flush_denormal(False)
    assert inside == (0 if supported else before)


def test_denormals_are_back_after_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt), no_denormals():
        raise KeyboardInterrupt
    assert _doubled() > 0


def test_who_did_without_still_does() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        with no_denormals():
            pass
        assert _doubled() == 0
    finally:
        torch.set_flush_denormal(False)
