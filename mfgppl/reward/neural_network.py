"""A small neural network as a reward program, its weights as latent sites."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram


@strict_keywords
def network_reward(
    hidden: Sequence[int] = (16,), *, scale: float = 1.0, crowd: bool = True
) -> RewardProgram:
    """Return a reward program that is a neural network of state, action and mean field.

    The first layer adds a row of weights for the state, one for the action and the crowd's shares
    times weights of their own; layers of `tanh` follow, then a linear one. The last layer has no
    constant, which no choice depends on.

    Parameters
    ----------
    hidden : sequence of int
        Units of each hidden layer, at least one layer.
    scale : float, positive
        Standard deviation of the last layer's output under the prior if its inputs were 1, in
        reward units. Weights have normal priors, of the others with standard deviation one over
        the root of the inputs that are not zero.
    crowd : bool
        Whether the network sees the mean field.

    Returns
    -------
    callable
        A reward program with the sites `state_weights` (S, H), `action_weights` (A, H), in games
        with types `type_weights` (C, H),
        `crowd_weights` (S, H), `hidden_bias_1` (H,), `hidden_weights_2` and so on, and
        `last_weights` (H,).

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong.

    Examples
    --------
    >>> reward = network_reward((8,), scale=2.0)
    """
    if isinstance(hidden, (str, int)) or not isinstance(hidden, Sequence):
        raise TypeError(f"`hidden` must be a sequence of layer sizes, as in (16,); got {hidden!r}.")
    sizes = [positive_int("hidden", size) for size in hidden]
    if not sizes:
        raise ValueError("`hidden` must have at least one layer; got none.")
    real_between("scale", scale, above=0.0)
    is_a("crowd", crowd, bool)

    def reward(x: RewardInputs) -> Tensor:
        *_, n_states, n_actions = x.shape
        units = sizes[0]
        values = _weights("hidden_bias_1", (units,), 1.0)
        if x.game.space.types:
            by_type = _weights("type_weights", (x.game.n_cells, units), 1.0)
            values = values + by_type[:, None, None, None, :]
        values = values + _weights("state_weights", (n_states, units), 1.0)[None, :, None, :]
        values = values + _weights("action_weights", (n_actions, units), 1.0)
        if crowd:
            seen = x.mean_field @ _weights("crowd_weights", (n_states, units), 1.0)
            values = values + seen[..., None, None, :]
        for k, size in enumerate(sizes[1:], start=2):
            weights = _weights(f"hidden_weights_{k}", (sizes[k - 2], size), sizes[k - 2] ** -0.5)
            values = torch.tanh(values) @ weights + _weights(f"hidden_bias_{k}", (size,), 1.0)
        return torch.tanh(values) @ _weights(
            "last_weights", (sizes[-1],), scale * sizes[-1] ** -0.5
        )

    layers = ", ".join(map(str, sizes))
    reward.__doc__ = f"Neural network of state, action and mean field; hidden units: {layers}."
    reward.source = f"network_reward(({layers},), scale={scale:g}, crowd={crowd})"  # type: ignore[attr-defined]
    return reward


def _weights(name: str, shape: tuple[int, ...], deviation: float) -> Tensor:
    """Sample a normal array."""
    zero = torch.zeros(shape, dtype=torch.float64)
    return pyro.sample(name, dist.Normal(zero, deviation).to_event(len(shape)))
