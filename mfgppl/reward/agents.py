"""What differs from agent to agent and is not seen, as a program declares it: `with x.agents:`."""

from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger

from mfgppl._arguments import is_a, positive_int
from mfgppl.reward.coordinates import axis

AGENT_LEVEL = "_agent_level"  # under which a message says what is asked of its site
ITSELF = "_itself"  # marks a site of one entry per agent, which is a parameter as any other
NODES = 11  # of a random coefficient


class SiteOptions(NamedTuple):
    """What is asked of a site.

    Attributes
    ----------
    nodes : int
        Nodes of a random coefficient.
    known : str or None
        The column that shows some agents' kinds.
    sampled : bool
        Whether each agent's value is a latent variable, and not summed over.
    agents : tuple of str, or None
        The panel's agents, where there is a panel with rows.
    """

    nodes: int = NODES
    known: str | None = None
    sampled: bool = False
    agents: tuple[str, ...] | None = None


class AgentLevel(Messenger):
    """The context in which a program declares what each agent has for itself: `with x.agents:`.

    Called, it returns one with other options.

    Parameters
    ----------
    nodes : int
        Nodes of a random coefficient, in each of its dimensions where there are one or two; of
        three and more, points of a quasi-Monte Carlo rule.
    known : str, optional
        A column of the panel's groups that says of some agents of which kind they are, counted from
        0; "unknown" of the others.
    sampled : bool
        Whether the coefficient of each agent is a latent variable, "site_deviation": how many
        standard deviations it is from the mean. The quadrature's reference, at the price of a
        policy and a dimension for each agent.
    """

    def __init__(self, options: SiteOptions) -> None:
        super().__init__()
        self.options = options

    def __call__(
        self, *args: Any, nodes: int | None = None, known: str | None = None, sampled: bool = False
    ) -> Any:
        """Return the context with other options."""
        if args:
            raise TypeError(
                "x.agents takes `nodes`, `known` and `sampled` by name, as in "
                "`with x.agents(nodes=21):`."
            )
        is_a("sampled", sampled, bool)
        if sampled and (nodes is not None or known is not None):
            raise ValueError(
                "x.agents(sampled=True) has no nodes to sum over, and no kinds: leave out `nodes` "
                "and `known`."
            )
        n_nodes = NODES if nodes is None else positive_int("nodes", nodes)
        return AgentLevel(SiteOptions(n_nodes, known, sampled, self.options.agents))

    def _pyro_sample(self, msg: Any) -> None:
        infer = msg["infer"] or {}
        if infer.get("_deterministic") or infer.get(ITSELF):
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
