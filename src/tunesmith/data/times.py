"""Points in time as people's data has them: ISO 8601 or a number."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any


def when(value: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 date or time (UTC where it names no zone), or a number as it is.
    None where it is neither: dates like 03/04/05 have no one meaning."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    text = str(value).strip()
    try:
        number = float(text)
        return number if math.isfinite(number) and len(text) != 8 else _iso(text)  # 20240105 is a date
    except ValueError:
        return _iso(text)


def _iso(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
