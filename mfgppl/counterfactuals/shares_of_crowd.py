"""The shares of the crowd that a reward reads, and directions of a flow in which shares grow."""

from typing import NamedTuple

import numpy as np
import scipy.sparse

from mfgppl.data.space import text_labels
from mfgppl.equilibrium.flat_flows import Array
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.crowd_met import noted_reads
from mfgppl.reward.parameters import latent_sites


class Share(NamedTuple):
    """A share of the crowd, in each group of it.

    Attributes
    ----------
    words : str
        Whose it is: "with law = yes".
    inside : ndarray of bool, shape (F,)
        Which entries of a flow are part of it.
    group : ndarray of int, shape (F,)
        Of what each entry is a share: of all agents of a type, say.
    """

    words: str
    inside: Array
    group: Array


def shares_read(model: TrajectoryModel) -> list[Share]:
    """Return the shares that a reward program asks for by label, and those of actions it sees."""
    game = model.game
    if not model.reward_reads_flow:
        return []
    with noted_reads() as reads:
        latent_sites(model.reward, model.inputs)
    n_actions = game.n_actions if game.joint else 1
    found = []
    for words, (inside, group) in reads.shares.items():
        entries = (inside.numpy().reshape(-1) > 0, group.numpy().reshape(-1))
        found.append(Share(words, *(np.repeat(entry, n_actions) for entry in entries)))
    return found + (_actions(game) if game.joint else [])


def _actions(game: MeanFieldGame) -> list[Share]:
    """Return the shares of actions in each state, which a reward sees of a joint flow."""
    S, A = game.shape[1:]
    state, action = np.divmod(np.arange(S * A), A)
    allowed = game.available.numpy().reshape(-1, S * A).any(0)
    return [
        Share(f"choosing “{label}”", (action == a) & allowed, state)
        for a, label in enumerate(text_labels(game.actions))
    ]


def raised(flow: Array, share: Share) -> Array:
    """Return the direction of a flow (T, F) in which a share grows, in each group by as much.

    Who comes leaves all other entries of the group in proportion, and who is there already is
    joined in proportion; where nobody is, all entries of the share alike. Where all are there, or
    nobody can be, nothing moves.
    """
    F = len(share.group)
    of_group = scipy.sparse.csr_matrix((np.ones(F), (np.arange(F), share.group)))
    mass, there = flow @ of_group, (flow * share.inside) @ of_group
    entries = np.broadcast_to(share.inside.astype(float) @ of_group, mass.shape)
    left = mass - there
    moves = (left > 0) & (entries > 0)
    weights = np.where(there[:, share.group] > 0, flow, 1.0)
    size = np.where(there > 0, there, entries)
    joined = np.divide(mass, size, out=np.zeros_like(mass), where=moves)[:, share.group] * weights
    left_by = np.divide(mass, left, out=np.zeros_like(mass), where=moves)[:, share.group] * flow
    return np.where(share.inside, joined, -left_by)


def towards(flow: Array, state: int, *, within: int, n_states: int) -> Array:
    """Return the direction in which a state's share of the crowd grows, of each type's as much.

    Others leave all states in proportion. Where everybody is there, nobody can come.

    Parameters
    ----------
    flow : ndarray, shape (T, F)
        The flow.
    state : int
        The state.
    within : int
        States of one type.
    n_states : int
        States of all types, F of them or F / A where the flow is joint.
    """
    T, S = len(flow), n_states
    shares = flow.reshape(T, S, -1)
    of_state = shares.sum(-1, keepdims=True)
    by_action = np.where(of_state > 0, shares / np.where(of_state > 0, of_state, 1.0),
                         1 / shares.shape[-1])  # fmt: skip
    mass = of_state.reshape(T, -1, within).sum(-1)
    there = np.zeros((T, S // within, within))
    there[:, :, state] = mass
    room = 1.0 - of_state.reshape(T, -1, within)[..., state].sum(-1)
    comes = np.divide(1.0, room, out=np.zeros(T), where=room > 0)[:, None, None]
    return (comes * (there.reshape(T, S, 1) * by_action - shares)).reshape(flow.shape)
