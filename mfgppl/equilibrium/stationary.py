"""Soft control and flows that go on for ever: discounted values and invariant distributions.

Arrays keep a time axis of length one. All maps are plain torch and can be differentiated.
"""

import torch
from torch import Tensor

from mfgppl._arguments import real_between, strict_keywords
from mfgppl.equilibrium.soft_control import SoftSolution
from mfgppl.equilibrium.steps import Steps, as_steps
from mfgppl.exceptions import ConvergenceError

MAX_ITERATIONS = 200
WITH_GRADIENT = 2  # steps at the solution that carry first and second derivatives


@strict_keywords
def soft_policy_iteration(
    reward: Tensor, transition: Tensor, *, discount: float, temperature: float = 1.0
) -> SoftSolution:
    """Solve the discounted entropy-regularised control problem without a horizon.

    `V = temperature * logsumexp_a(Q / temperature)` with `Q = r + discount * P V`, by Newton steps:
    each evaluates the soft policy exactly.

    Parameters
    ----------
    reward : Tensor, shape (1, S, A)
        Reward units; -inf where an action is not available.
    transition : Tensor, shape (S, A, S) or (1, S, A, S)
        Probability of the next state, dense or sparse COO; the last axis sums to 1.
    discount : float in (0, 1)
        Weight of the next period.
    temperature : float, positive
        Weight of the entropy bonus, in reward units.

    Returns
    -------
    SoftSolution
        Soft values (1, S), their Q (1, S, A) and the log policy.

    Raises
    ------
    ValueError
        If shapes disagree.
    ConvergenceError
        If the values do not settle, as with rewards that are not finite.

    References
    ----------
    .. [1] Rust (1987), *Optimal replacement of GMC bus engines*, Econometrica 55, section 4.
    .. [2] Geist, Scherrer and Pietquin (2019), *A theory of regularized Markov decision
       processes*, ICML, section 4.
    """
    real_between("temperature", temperature, above=0.0)
    real_between("discount", discount, above=0.0, upto=1.0, strict=True)
    if reward.ndim != 3 or len(reward) != 1:
        raise ValueError(f"`reward` must have shape (1, S, A); got {tuple(reward.shape)}.")
    steps = as_steps(transition, 1)
    expected = (reward.shape[1], reward.shape[2], reward.shape[1])
    if steps.shape != expected:
        raise ValueError(
            f"`transition` must have shape (S, A, S) = {expected} to match `reward` "
            f"{tuple(reward.shape)}; got {tuple(transition.shape)}."
        )
    constants = {"discount": discount, "temperature": temperature}
    values = _solved(reward[0], steps, **constants)
    if reward.requires_grad or transition.requires_grad:
        for _ in range(WITH_GRADIENT):
            values = values + _newton_step(values, reward[0], steps, **constants)
    q_values, soft_values, log_policy = _bellman(values, reward[0], steps, **constants)
    return SoftSolution(q_values[None], soft_values[None], log_policy[None])


@torch.no_grad()
def _solved(reward: Tensor, steps: Steps, *, discount: float, temperature: float) -> Tensor:
    """Return the soft values (S,) to rounding."""
    constants = {"discount": discount, "temperature": temperature}
    values = torch.zeros_like(reward[:, 0])
    _, values, _ = _bellman(values, reward, steps, **constants)
    smallest = torch.inf
    for _ in range(MAX_ITERATIONS):
        change = _newton_step(values, reward, steps, **constants)
        values = values + change
        size = float(change.abs().max())
        # quadratic until rounding, where it stops falling
        if size <= 1e-14 * float(values.abs().max()) or (smallest <= 1e-9 and size >= smallest):
            return values
        smallest = min(smallest, size)
    raise ConvergenceError(
        f"the discounted values did not settle in {MAX_ITERATIONS} steps (last change {size:.1e}); "
        "are all rewards finite?"
    )


def _bellman(
    values: Tensor, reward: Tensor, steps: Steps, *, discount: float, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Q (S, A), V (S,) and the log policy one step before values (S,)."""
    q = reward + discount * steps.expected(0, values)
    soft = temperature * torch.logsumexp(q / temperature, dim=-1)
    return q, soft, (q - soft[:, None]) / temperature


def _newton_step(
    values: Tensor, reward: Tensor, steps: Steps, *, discount: float, temperature: float
) -> Tensor:
    constants = {"discount": discount, "temperature": temperature}
    _, soft, log_policy = _bellman(values, reward, steps, **constants)
    stay = torch.eye(len(values), dtype=values.dtype, device=values.device)
    system = stay - discount * steps.under(0, log_policy.exp())
    return torch.linalg.solve(system, soft - values)


@strict_keywords
def invariant_mean_field(policy: Tensor, transition: Tensor) -> Tensor:
    """Return the distribution over states that a policy keeps as it is.

    Parameters
    ----------
    policy : Tensor, shape (1, S, A)
        Probability of each action.
    transition : Tensor, shape (S, A, S) or (1, S, A, S)
        Probability of the next state, dense or sparse COO.

    Returns
    -------
    Tensor, shape (1, S)
        The solution of `mu = mu P_pi` with `sum mu = 1`.

    Raises
    ------
    ValueError
        If there are several, as in a world of two parts without a way between them.
    """
    steps = as_steps(transition, 1)
    if policy.ndim != 3 or tuple(policy.shape) != (1, *steps.shape[:2]):
        raise ValueError(
            f"`policy` must have shape (1, S, A) with (S, A) = {steps.shape[:2]} to match "
            f"`transition`; got {tuple(policy.shape)}."
        )
    moved = steps.under(0, policy[0])
    # (I - P') mu = 0 and sum mu = 1, in one regular system
    system = torch.eye(len(moved), dtype=moved.dtype) - moved.T + 1.0
    found, info = torch.linalg.solve_ex(system, torch.ones_like(moved[0]))
    flow = found.clamp_min(0.0) if not found.requires_grad else found
    settled = int(info) == 0 and float((flow @ moved - flow).abs().max().detach()) < 1e-8
    if not settled:
        raise ValueError(
            "the policy keeps several distributions as they are: some states cannot be left for "
            "the others. Give `transition` a way between them, however rare."
        )
    return flow[None] / flow.sum()
