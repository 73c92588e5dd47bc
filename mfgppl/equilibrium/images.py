"""Answers to a flow: its soft best response, or a policy with the flow that it generates."""

from typing import NamedTuple

from mfgppl.equilibrium.flat_flows import Array, gap


class Image(NamedTuple):
    """The soft best response to a flow.

    Attributes
    ----------
    flow : ndarray, shape (T, F)
        The flow that agents face; F is S, or S * A where the mean field is joint.
    generated : ndarray, shape (T, F)
        The flow that they generate along it.
    reward, policy : ndarray, shape (T, S, A)
        The reward along the flow, and the policy.
    values : ndarray, shape (T, S)
        Soft values.
    """

    flow: Array
    generated: Array
    reward: Array
    policy: Array
    values: Array

    @property
    def residual(self) -> float:
        """Largest change of a share."""
        return gap(self.flow, self.generated)


class Evaluation(NamedTuple):
    """A policy with the flow that it generates.

    Attributes
    ----------
    policy, reward, q_values : ndarray, shape (T, S, A)
        The policy, the reward along its flow, and the Q of the policy.
    flow : ndarray, shape (T, F)
        The flow, which the dynamics answer.
    values : ndarray, shape (T, S)
        Values of the policy.
    """

    policy: Array
    flow: Array
    reward: Array
    q_values: Array
    values: Array
