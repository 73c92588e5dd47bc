"""Games and policies of other libraries: MFGLib and OpenSpiel. Each is an optional extra.

How they come in and go out. May import equilibria and what is below them.
"""

from mfgppl.interop.gymnasium import to_gymnasium
from mfgppl.interop.mfglib import from_mfglib, to_mfglib
from mfgppl.interop.openspiel import from_openspiel, to_openspiel

__all__ = ["from_mfglib", "from_openspiel", "to_gymnasium", "to_mfglib", "to_openspiel"]
