"""Settings refuse what makes no sense, and say which and why."""

from __future__ import annotations

import math

import pytest

from readahead.core.config import AdmissionConfig, PlacementConfig, ReadingConfig, require


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 11.0])
def test_numbers_outside_their_range_are_refused(value: float) -> None:
    """The message names the field, the bounds and the value."""
    with pytest.raises(ValueError, match=r"admission\.x must be in \[0, 10\], got"):
        require("admission.x", value, least=0, most=10)


def test_each_setting_is_checked() -> None:
    """A wrong number never reaches a decision."""
    with pytest.raises(ValueError, match="queue_requests_max"):
        AdmissionConfig(queue_requests_max=0)
    with pytest.raises(ValueError, match="attempts_max"):
        AdmissionConfig(attempts_max=99)
    with pytest.raises(ValueError, match="remote_prefill_tokens_min"):
        PlacementConfig(remote_prefill_tokens_min=-1)
    with pytest.raises(ValueError, match="pace_tok_s"):
        ReadingConfig(pace_tok_s=math.nan)
