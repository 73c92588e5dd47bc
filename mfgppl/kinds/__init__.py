"""Agents of kinds that nobody sees: how many there are, who is who, what each of them does.

May import hypotheses and design, and what is below them.
"""

from mfgppl.kinds.description import describe, probabilities
from mfgppl.kinds.number import choose
from mfgppl.reward.kinds_as_types import as_types

__all__ = ["as_types", "choose", "describe", "probabilities"]
