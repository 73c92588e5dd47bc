"""Derivatives of an equilibrium by the implicit function theorem.

At a solution `mu = F(mu, theta)`, `d mu = (I - F_mu)^-1 F_theta d theta`. `F_theta` is autograd's,
of one response at the solution; the linear system is solved forwards (JVP) or transposed (VJP).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from mfgppl.equilibrium.images import Image
from mfgppl.equilibrium.linearisation import AnyResponseMap, FlowMap, inverse
from mfgppl.equilibrium.recording import not_nested
from mfgppl.equilibrium.response import Equilibrium, soft_response
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import double_precision, spread_reward


class _Implicit(torch.autograd.Function):
    """The solution, as a function of what its response generates there."""

    @staticmethod
    def forward(ctx: Any, generated: Tensor, solution: Tensor, maps: tuple[FlowMap, FlowMap]) -> Tensor:  # fmt: skip  # noqa: E501
        ctx.maps, ctx.flat = maps, (len(solution), -1)
        return solution.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        return _apply_inverse(ctx.maps[1], cotangent, ctx.flat), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _apply_inverse(ctx.maps[0], tangent, ctx.flat)


def _apply_inverse(function: FlowMap, change: Tensor, flat: tuple[int, int]) -> Tensor:
    moved = function(change.detach().reshape(flat).numpy())
    return torch.from_numpy(moved).reshape(change.shape)


def with_derivatives(response_map: AnyResponseMap, image: Image) -> Equilibrium | None:
    """Return the equilibrium with its derivatives in what start, reward and dynamics depend on.

    None where they depend on no tensor that is differentiated.

    Raises
    ------
    ValueError
        If the dynamics answer the crowd through sparse matrices, whose derivative is not known.
    """
    game, program = response_map.game, response_map.program
    point = torch.from_numpy(image.flow.copy()).reshape(game.flow_shape)
    moved = [game.transition_along(point)] if game.crowd_moves_dynamics else []
    with double_precision():
        reward = spread_reward(program, RewardInputs(game, point))
    if not any(map(_is_differentiated, (game.initial, reward, *moved))):
        return None
    if any(transition.layout != torch.strided for transition in moved):
        raise ValueError(
            "an equilibrium is not differentiated through a `transition` that returns scipy sparse "
            "matrices; return a dense tensor computed in torch, or solve under torch.no_grad()."
        )
    with double_precision():
        generated = soft_response(game, program, point, temperature=game.temperature).mean_field
        maps = inverse(response_map, image, game.temperature)
        flow = _Implicit.apply(generated, point, maps)
        response = soft_response(game, program, flow, temperature=game.temperature)
    return response._replace(mean_field=flow)


def _is_differentiated(value: Tensor) -> bool:
    """Return whether a derivative of a tensor is asked for, backwards or forwards."""
    if value.requires_grad:
        return True
    return not not_nested() and forward_ad.unpack_dual(value).tangent is not None
