"""Records as JSON that every reader takes."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def json_text(record: Any) -> str:
    """Return a record as JSON: no numpy, null where there is no number, a last line break."""
    return json.dumps(_plain(record), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)
