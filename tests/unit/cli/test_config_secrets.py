"""What `readahead config show` keeps to itself."""

from __future__ import annotations

import pytest

from readahead.cli.configuration import Component, show


@pytest.mark.parametrize("user", ["", "readahead"])
def test_a_password_in_a_url_is_not_shown(capsys: pytest.CaptureFixture[str], user: str) -> None:
    """The rest of the URL is: host and user are what one looks for."""
    show(
        Component.ROUTER,
        file=None,
        overrides=[f"membership.redis_url=redis://{user}:hunter2@redis.example:6379/0"],
    )
    shown = capsys.readouterr().out.replace("\n", "")
    assert "hunter2" not in shown
    assert f"redis://{user}:***@" in shown
