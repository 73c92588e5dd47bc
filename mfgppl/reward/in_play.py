"""A reward program in one of several plays of a game."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from mfgppl.reward.inputs import Labels, RewardInputs
from mfgppl.reward.program import RewardProgram, reward_source


def in_play(reward: RewardProgram, label: Any, labels: Sequence[Any]) -> RewardProgram:
    """Return a reward program that knows which play it is in.

    Parameters
    ----------
    reward : callable
        A reward program; its `x.play` is compared, `x.play == "north"`, and its position
        `x.play.codes`, of shape (1, 1, 1), picks entries of a vector with one a play.
    label : object
        The play.
    labels : sequence
        All plays, in order.
    """
    code = torch.tensor([[[list(labels).index(label)]]])

    def here(x: RewardInputs) -> Any:
        seen = copy.copy(x)
        seen.play = Labels("play", labels, code)
        return reward(seen)

    here.__doc__ = f"A reward in the play {label!r}."
    here.source = reward_source(reward)  # type: ignore[attr-defined]
    return here
