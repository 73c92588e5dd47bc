"""What differs from agent to agent and is not seen, as a program declares it: `with x.agents:`."""

from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from mfgppl._arguments import positive_int
from mfgppl.reward.coordinates import axis

AGENT_LEVEL = "_agent_level"  # under which a message says how many nodes its site may have
NODES = 11  # of a random coefficient


class AgentLevel(Messenger):
    """The context in which a program declares what each agent has for itself: `with x.agents:`.

    Parameters
    ----------
    nodes : int
        Nodes of a random coefficient, in each of its dimensions where there are one or two; of
        three and more, points of a quasi-Monte Carlo rule.
    """

    def __init__(self, nodes: int = NODES) -> None:
        super().__init__()
        self.nodes = nodes

    def __call__(self, *args: Any, nodes: int | None = None) -> Any:
        """Return the context with another number of nodes."""
        if args or nodes is None:
            raise TypeError("x.agents takes `nodes` alone, as in `with x.agents(nodes=21):`.")
        return AgentLevel(positive_int("nodes", nodes))

    def _pyro_sample(self, msg: Any) -> None:
        if msg["infer"] is not None and msg["infer"].get("_deterministic"):
            return
        if msg["is_observed"]:
            raise ValueError(
                f"{msg['name']!r} stands inside `with x.agents:` and is observed; only what each "
                "agent has for itself is declared there."
            )
        msg["infer"] = {**(msg["infer"] or {}), AGENT_LEVEL: self.nodes}


class FirstState:
    """The first state that is seen of an agent, by coordinate, on an axis of its own.

    Shares of kinds may read it; rewards may not.
    """

    def __init__(self, within: Any, n_axes: int) -> None:
        shape = (within.size, *[1] * n_axes)
        for row, (name, labels) in zip(within.codes, within.coordinates.items(), strict=True):
            setattr(self, name, axis(name, labels, torch.as_tensor(row).reshape(shape)))
