"""Values of typed columns as a JSON line would have them: dates as ISO text, exact decimals as text."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any


def plain_value(value: Any) -> Any:
    """Binary values stay bytes: whoever needs a text refuses them, and a column nobody needs does no harm."""
    if value is None or type(value) in (str, int, float, bool, bytes):
        return value
    if isinstance(value, dict):
        return {str(k): plain_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(v) for v in value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return str(value)


def simplest(value: float) -> float | int:
    """3 for 3.0: a spreadsheet knows no whole numbers, and a class named 3 is meant."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
