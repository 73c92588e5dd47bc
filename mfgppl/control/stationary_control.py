"""Soft control and flows that go on for ever: discounted values and invariant distributions.

Arrays keep a time axis of length one. All maps are plain torch and can be differentiated.
"""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from mfgppl._arguments import differentiable_door, real_between
from mfgppl.control.plain_tables import check_fit, checked_reward, checked_shares, checked_steps
from mfgppl.control.soft_control import SoftSolution
from mfgppl.control.steps import Steps
from mfgppl.exceptions import ConvergenceError

MAX_ITERATIONS = 200
WITH_GRADIENT = 2  # steps at the solution that carry first and second derivatives


@differentiable_door
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
        If shapes disagree, the reward is not finite, or rows of the transition are no
        probabilities.
    ConvergenceError
        If the values do not settle.

    References
    ----------
    .. [1] Rust (1987), *Optimal replacement of GMC bus engines*, Econometrica 55, section 4.
    .. [2] Geist, Scherrer and Pietquin (2019), *A theory of regularized Markov decision
       processes*, ICML, section 4.
    """
    reward = checked_reward(reward)
    if len(reward) != 1:
        raise ValueError(f"`reward` must have shape (1, S, A); got {tuple(reward.shape)}.")
    steps = checked_steps(transition, 1)
    check_fit(reward, steps)
    return policy_iteration(
        reward,
        steps,
        discount=real_between("discount", discount, above=0.0, upto=1.0, strict=True),
        temperature=real_between("temperature", temperature, above=0.0),
    )


def policy_iteration(
    reward: Tensor, steps: Steps, *, discount: float | Tensor, temperature: float | Tensor
) -> SoftSolution:
    """Return the same for a reward and dynamics that have been checked."""
    constants = {"discount": discount, "temperature": temperature}
    values = _soft_values(reward[0], steps, **constants)
    given = (reward, steps.entries, discount, temperature)
    if any(isinstance(v, Tensor) and v.requires_grad for v in given):
        for _ in range(WITH_GRADIENT):
            values = values + _newton_step(values, reward[0], steps, **constants)
    q_values, soft_values, log_policy = _bellman(values, reward[0], steps, **constants)
    return SoftSolution(q_values[None], soft_values[None], log_policy[None])


@torch.no_grad()
def _soft_values(
    reward: Tensor, steps: Steps, *, discount: float | Tensor, temperature: float | Tensor
) -> Tensor:
    """Return the soft values (S,) to rounding."""
    constants = {"discount": discount, "temperature": temperature}
    values = torch.zeros_like(reward[:, 0])
    _, values, _ = _bellman(values, reward, steps, **constants)
    # values may be zero, and are sums of rewards and entropies
    largest, smallest = float(reward.nan_to_num(neginf=0.0).abs().max()), torch.inf
    for _ in range(MAX_ITERATIONS):
        change = _newton_step(values, reward, steps, **constants)
        values = values + change
        size, scale = float(change.abs().max()), max(float(values.abs().max()), largest)
        # quadratic until rounding, which grows with 1 / (1 - discount), where it stops falling
        if size <= 1e-14 * scale or (smallest <= 1e-6 * scale and size >= smallest / 2):
            return values
        smallest = min(smallest, size)
    raise ConvergenceError(
        f"the discounted values did not settle in {MAX_ITERATIONS} steps (last change {size:.1e}); "
        "are all rewards finite?"
    )


def _bellman(
    values: Tensor,
    reward: Tensor,
    steps: Steps,
    *,
    discount: float | Tensor,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Q (S, A), V (S,) and the log policy one step before values (S,)."""
    q = reward + discount * steps.expected(0, values)
    soft = temperature * torch.logsumexp(q / temperature, dim=-1)
    return q, soft, (q - soft[:, None]) / temperature


def _newton_step(
    values: Tensor,
    reward: Tensor,
    steps: Steps,
    *,
    discount: float | Tensor,
    temperature: float | Tensor,
) -> Tensor:
    constants = {"discount": discount, "temperature": temperature}
    _, soft, log_policy = _bellman(values, reward, steps, **constants)
    return steps.carried(0, log_policy.exp(), soft - values, discount=discount)


@differentiable_door
def invariant_mean_field(
    policy: Tensor, transition: Tensor, *, initial: Tensor | None = None
) -> Tensor:
    """Return the distribution over states that a policy keeps as it is.

    Parameters
    ----------
    policy : Tensor, shape (1, S, A)
        Probability of each action.
    transition : Tensor, shape (S, A, S) or (1, S, A, S)
        Probability of the next state, dense or sparse COO.
    initial : Tensor, shape (S,), optional
        Where agents begin, which decides where there are several classes of states that are never
        left: each gets the mass that ends in it.

    Returns
    -------
    Tensor, shape (1, S)
        The solution of `mu = mu P_pi` with `sum mu = 1`; from `initial`, the long-run average.

    Raises
    ------
    ValueError
        If shapes disagree, something is no probabilities, or there are several such distributions
        and no `initial`.

    References
    ----------
    .. [1] Puterman (1994), *Markov decision processes*, Wiley, appendix A.
    """
    policy, steps = checked_shares("policy", policy, "(1, S, A)"), checked_steps(transition, 1)
    initial = None if initial is None else checked_shares("initial", initial, "(S,)")
    if policy.ndim != 3 or tuple(policy.shape) != (1, *steps.shape[:2]):
        raise ValueError(
            f"`policy` must have shape (1, S, A) with (S, A) = {steps.shape[:2]} to match "
            f"`transition`; got {tuple(policy.shape)}."
        )
    if initial is not None and tuple(initial.shape) != steps.shape[:1]:
        raise ValueError(
            f"`initial` must have shape {steps.shape[:1]}; got {tuple(initial.shape)}."
        )
    return kept_flow(policy, steps, initial=initial)


def kept_flow(policy: Tensor, steps: Steps, *, initial: Tensor | None) -> Tensor:
    """Return the same for a policy, dynamics and a start that have been checked."""
    moved = steps.under(0, policy[0])
    classes = _closed_classes(moved)
    if len(classes) > 1 and initial is None:
        raise ValueError(
            f"the policy keeps several distributions as they are: {len(classes)} groups of states "
            "are never left. Give `initial`, or `transition` a way between them, however rare."
        )
    flow = torch.zeros_like(moved[0])
    for states in classes:
        mass = 1.0 if len(classes) == 1 else _mass_ending_in(states, moved, classes, initial)
        within = moved[states][:, states]
        # (I - P') mu = 0 and sum mu = 1, in one regular system
        system = torch.eye(len(states), dtype=moved.dtype) - within.T + 1.0
        kept = torch.linalg.solve(system, torch.ones_like(within[0]))
        flow = flow.index_put((states,), mass * kept / kept.sum())
    return flow[None]


def _closed_classes(moved: Tensor) -> list[Tensor]:
    """Return the groups of states that lead to each other and to nowhere else."""
    ways = scipy.sparse.csr_array(moved.detach().numpy() > 0)
    n, group = scipy.sparse.csgraph.connected_components(ways, connection="strong")
    start, end = ways.nonzero()
    open_groups = set(group[start[group[start] != group[end]]].tolist())
    closed = [k for k in range(n) if k not in open_groups]
    return [torch.from_numpy(np.flatnonzero(group == k)) for k in closed]


def _mass_ending_in(
    states: Tensor, moved: Tensor, classes: list[Tensor], initial: Tensor | None
) -> Tensor:
    """Return the mass that a distribution ends up with in one closed class."""
    assert initial is not None
    inside = torch.zeros(len(moved), dtype=torch.bool)
    inside[torch.cat(classes)] = True
    passing = (~inside).nonzero()[:, 0]
    within = moved[passing][:, passing]
    visits = torch.linalg.solve(torch.eye(len(passing)).to(moved) - within.T, initial[passing])
    return initial[states].sum() + (visits @ moved[passing][:, states]).sum()
