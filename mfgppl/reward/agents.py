"""What differs from agent to agent and is not seen, as a program declares it: `with x.agents:`."""

from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger

from mfgppl._arguments import positive_int
from mfgppl.reward.coordinates import axis

AGENT_LEVEL = "_agent_level"  # under which a message says what is asked of its site
NODES = 11  # of a random coefficient


class SiteOptions(NamedTuple):
    """What is asked of a site: its nodes, and the column that shows some agents' kinds."""

    nodes: int
    known: str | None


class AgentLevel(Messenger):
    """The context in which a program declares what each agent has for itself: `with x.agents:`.

    Parameters
    ----------
    nodes : int
        Nodes of a random coefficient, in each of its dimensions where there are one or two; of
        three and more, points of a quasi-Monte Carlo rule.
    known : str, optional
        A column of the panel's groups that says of some agents of which kind they are, counted from
        0; "unknown" of the others.
    """

    def __init__(self, nodes: int = NODES, known: str | None = None) -> None:
        super().__init__()
        self.options = SiteOptions(nodes, known)

    def __call__(self, *args: Any, nodes: int = NODES, known: str | None = None) -> Any:
        """Return the context with another number of nodes, or with kinds that are known of some."""
        if args:
            raise TypeError(
                "x.agents takes `nodes` and `known` by name, as in `with x.agents(nodes=21):`."
            )
        return AgentLevel(positive_int("nodes", nodes), known)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["infer"] is not None and msg["infer"].get("_deterministic"):
            return
        if msg["is_observed"]:
            raise ValueError(
                f"{msg['name']!r} stands inside `with x.agents:` and is observed; only what each "
                "agent has for itself is declared there."
            )
        msg["infer"] = {**(msg["infer"] or {}), AGENT_LEVEL: self.options}


class FirstState:
    """The first state that is seen of an agent, by coordinate, on an axis of its own.

    Shares of kinds may read it; rewards may not.
    """

    def __init__(self, within: Any, n_axes: int) -> None:
        shape = (within.size, *[1] * n_axes)
        for row, (name, labels) in zip(within.codes, within.coordinates.items(), strict=True):
            setattr(self, name, axis(name, labels, torch.as_tensor(row).reshape(shape)))
