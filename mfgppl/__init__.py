"""Probabilistic inverse reinforcement learning in mean field games.

`__init__.pyi` lists the public names. Each is loaded when it is first used: `import mfgppl` is
quick, and a shell completes names without loading figures or samplers.
"""

import warnings

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Load a public name; one that stands in a namespace too, with a warning that says where."""
    try:
        return _load(name)
    except AttributeError:
        spaces = [] if name.startswith("_") else [s for s in __all__ if s.islower()]
    for space in spaces:
        found = _load(space)
        if name in getattr(found, "__all__", ()):
            moved = f"mfgppl.{name} is not at the top: it is mfgppl.{space}.{name}."
            warnings.warn(moved, DeprecationWarning, stacklevel=2)
            return getattr(found, name)
    raise AttributeError(f"module 'mfgppl' has no attribute {name!r}")
