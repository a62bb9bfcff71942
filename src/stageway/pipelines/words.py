"""How times are said to people."""

from __future__ import annotations

from datetime import datetime


def clock(at: int) -> str:
    """Say a moment (ms since 1970) in local time, without the date when it is today."""
    moment = datetime.fromtimestamp(at / 1000).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")
