"""Models with shocks common to all agents, which can pass for the crowd."""

from collections.abc import Sequence

from mfgppl._arguments import is_a, names_of, strict_keywords, suggestion
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.common_shocks import SITE, free_reward


@strict_keywords
def with_free_periods(
    model: TrajectoryModel, *, within: str | Sequence[str] = ()
) -> TrajectoryModel:
    """Return a model in which each period may make each action better or worse for everybody.

    What all agents of a period share can pass for the crowd, whose shares move at the same time.
    With free periods a coefficient of the crowd is learned from what differs between states, or
    types, within a period.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood and a horizon.
    within : str or list of str
        Types whose labels have shocks of their own; by default all agents share them.

    Returns
    -------
    TrajectoryModel
        Of the same panel along the same flow, with one more latent site, "free_periods": unforeseen
        shocks that sum to zero over time and over actions, with a wide prior.

    Raises
    ------
    ValueError
        If the game is stationary, `within` names no type, or the likelihood is the energy law's.
    """
    is_a("model", model, TrajectoryModel)
    types = shocked(model.game, ["time", *names_of("within", within)])
    if SITE in model.parameters:
        raise ValueError("`model` has free periods already.")
    mean_field = model.mean_field if model.flow_kind == "known" else model.flow_kind
    return TrajectoryModel(
        model.game, free_reward(model.reward, within=types), model.panel,
        likelihood=model.likelihood, start=model.start, mean_field=mean_field,
    )  # fmt: skip


def shocked(game: MeanFieldGame, free: str | Sequence[str]) -> tuple[str, ...]:
    """Return the types that `free` names beside "time", else raise a `ValueError`."""
    named = names_of("free", free)
    known = ["time", *game.space.types]
    for word in named:
        if word not in known:
            hint = suggestion(word, known) or f" valid: {', '.join(known)}."
            raise ValueError(f"`free` names {word!r}, which is no axis of shocks;{hint}")
    if "time" not in named:
        raise ValueError(f"`free` must name 'time'; got {free!r}.")
    if game.stationary:
        raise ValueError("a stationary game has no periods that could be free.")
    return tuple(word for word in named if word != "time")
