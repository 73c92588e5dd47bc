"""Derivatives in forward mode, whose rules torch loads at the first one."""

import functools
import importlib
import warnings


@functools.cache
def load_rules() -> None:
    """Load torch's rules without its own warning of torch.jit, an error where warnings are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        importlib.import_module("torch._decomp.decompositions_for_jvp")
