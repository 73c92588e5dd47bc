"""What questions ask of a model, and the flow of other panels that they fit."""

import torch
from torch import Tensor

from mfgppl._arguments import one_of
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.panels import FLOWS, flow_of, shows_flow

TREATMENTS = ["known", *FLOWS]  # of the flow, in fits of several panels


def treatment_of(model: TrajectoryModel, mean_field: str | None) -> str:
    """Return how fits of other panels treat the flow: as asked for, else as the model does."""
    if mean_field is None:
        return "equilibrium" if model.coupled else "known"
    one_of("mean_field", mean_field, TREATMENTS)
    if mean_field == "known" and model.coupled:
        raise ValueError(
            "mean_field='known' takes the model's flow, and a coupled model solves for its own; "
            "use 'empirical' or 'equilibrium', or a model along a flow, as model.along(flow)."
        )
    return mean_field


def observed_flow(model: TrajectoryModel) -> Tensor:
    """Return the flow of a model's own panel, the model's where the panel does not show it all."""
    shown = shows_flow(model.panel, model.game)
    return torch.as_tensor(flow_of(model.panel, model.game)) if shown else model.mean_field


def needs_causal(model: TrajectoryModel, what: str) -> None:
    """Raise a `ValueError` unless a model has the exact law of the actions."""
    if model.likelihood != "causal":
        raise ValueError(
            f"{what} needs likelihood='causal': under the energy likelihood the next state does "
            "not follow the game's dynamics, and later decisions change the law of earlier ones."
        )


def needs_one_kind(model: TrajectoryModel, what: str) -> None:
    """Raise a `ValueError` if a model has agent-level sites."""
    if model.nodes is not None:
        raise ValueError(
            f"{what} takes agents of one kind, or of kinds that are seen; the reward program has "
            f"the agent-level site {model.nodes.sites[-1].name!r}."
        )
