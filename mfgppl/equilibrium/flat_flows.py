"""Flows and policies as arrays: how the iterations and the kernels take them."""

import numpy as np

from mfgppl._generated_flow import uniform_policy
from mfgppl._kernels import flows
from mfgppl.game import MeanFieldGame

Array = np.ndarray


def flat_shape(game: MeanFieldGame) -> tuple[int, int]:
    """Return the shape (T, F) of a flow as the kernels take it."""
    T, S, A = game.shape
    return T, S * A if game.joint else S


def uniform_flow(game: MeanFieldGame) -> Array:
    """Return the flow (T, F) of those who stay where they began and take all actions as often."""
    shares = np.tile(game.initial.detach().numpy(), (game.shape[0], 1))
    if not game.joint:
        return shares
    return (shares[..., None] * uniform_policy(game).numpy()).reshape(flat_shape(game))


def as_shares(flow: Array) -> Array:
    """Return a flow (T, F) without negative shares, each time's summing to one."""
    out = np.empty(flow.shape)
    flows.as_shares(np.ascontiguousarray(flow), out)
    return out


def gap(flow: Array, generated: Array) -> float:
    """Return the largest change of a share between flows (T, F); NaN where one is."""
    largest: float = flows.gap(flow, generated)
    return largest


def softmax(logits: Array) -> Array:
    """Return the policy of logits (T, S, A)."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))
