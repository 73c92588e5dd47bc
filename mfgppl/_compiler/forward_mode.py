"""Derivatives in forward mode, whose rules torch loads at the first one."""

import functools
import importlib
import inspect
import warnings

OF_ZEROS = ("add", "div", "mul", "sub")  # torch has rules in Python for tangents that are zero


@functools.cache
def load_rules() -> None:
    """Load torch's rules without its own warning of torch.jit, an error where warnings are.

    And without its compiler, which takes longer to load than all else here: at the first use of a
    rule in Python, torch loads it to have the rule left alone, but not where a mark says that this
    has been done.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        importlib.import_module("torch._decomp.decompositions_for_jvp")
    references = importlib.import_module("torch._refs")
    for name in OF_ZEROS:
        function = getattr(references, name, None)
        while function is not None:
            if inspect.isfunction(rule := inspect.getclosurevars(function).nonlocals.get("fn")):
                vars(rule).setdefault("__dynamo_disable", rule)
            function = getattr(function, "__wrapped__", None)
