"""What is taken for an array of numbers, and what has labels."""

from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor


def is_labelled(value: Any) -> bool:
    """Return whether a value is an array with labels."""
    return isinstance(value, (xr.DataArray, pd.Series, pd.DataFrame))


def as_numbers(name: str, value: Any, hint: str) -> Tensor:
    """Return an array of numbers as a tensor, else raise a `TypeError`."""
    try:
        if isinstance(value, Tensor):
            return value
        return torch.tensor(np.asarray(value, float, order="C"))  # torch takes no backward strides
    except (TypeError, ValueError):
        message = f"`{name}` must be an array of numbers of shape {hint}"
        raise TypeError(f"{message}; got {type(value).__name__}.") from None
