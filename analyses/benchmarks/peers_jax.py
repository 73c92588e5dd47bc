"""The reference problem in JAX and NumPyro; import it before any other use of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import reference
from jax import lax
from jax.scipy.special import logsumexp

jax.config.update("jax_enable_x64", True)  # as precise as the others


def log_likelihood(reward: Any, transition: Any, counts: Any) -> Any:
    """Compute the causal log likelihood by one scan backwards in time.

    The scan returns both tables and counts weigh them once, the fastest of the forms tried (counts
    within the scan, actions first, unrolled).

    Parameters
    ----------
    reward, counts : array, shape (T, S, A)
        The reward table and the action counts.
    transition : array, shape (T, S, A, S)
        Dynamics by time, with a last table that multiplies zero values.
    """
    q, norm = sweep(reward, transition)
    return (counts * q).sum() - (counts.sum(-1) * norm).sum()


def sweep(reward: Any, transition: Any) -> tuple[Any, Any]:
    """Return scaled Q (T, S, A) and its logsumexp over actions (T, S)."""

    def step(values: Any, now: Any) -> tuple[Any, Any]:
        r, table = now
        q = r + reference.DISCOUNT * jnp.einsum("sax,x->sa", table, values)
        norm = logsumexp(q / reference.TEMPERATURE, axis=-1)
        return reference.TEMPERATURE * norm, (q / reference.TEMPERATURE, norm)

    start = jnp.zeros(reward.shape[1], reward.dtype)
    return lax.scan(step, start, (reward, transition), reverse=True)[1]


@jax.custom_vjp
def by_hand(reward: Any, transition: Any, counts: Any) -> Any:
    """Compute the same with the analytic adjoint, a scan forwards in time, as its gradient."""
    return log_likelihood(reward, transition, counts)


def _forward(reward: Any, transition: Any, counts: Any) -> tuple[Any, Any]:
    q, norm = sweep(reward, transition)
    logs = q - norm[..., None]
    return (counts * logs).sum(), (jnp.exp(logs), transition, counts)


def _backward(kept: Any, cotangent: Any) -> tuple[Any, None, None]:
    def step(adjoint: Any, now: Any) -> tuple[Any, Any]:
        policy, table, n = now
        carried = adjoint - n.sum(-1) / reference.TEMPERATURE
        g = n / reference.TEMPERATURE + policy * carried[:, None]
        return reference.DISCOUNT * jnp.einsum("sa,sax->x", g, table), g

    start = jnp.zeros(kept[0].shape[1], kept[0].dtype)
    return cotangent * lax.scan(step, start, kept)[1], None, None


by_hand.defvjp(_forward, _backward)


def with_last(transition: Any) -> Any:
    """Append the table after the last decision, which nothing follows."""
    return jnp.concatenate([jnp.asarray(transition), jnp.zeros((1, *transition.shape[1:]))])


def model(arrays: reference.Arrays, *, form: str = "linear") -> Callable[[], None]:
    """Return the NumPyro model: the same sites and priors, the likelihood as a factor."""
    features, counts = jnp.asarray(arrays.features), jnp.asarray(arrays.counts)
    transition = with_last(arrays.transition)
    n_slopes, scale_of_prior = len(features) - 2, reference.PRIOR_SCALE

    def declared() -> None:
        normal = dist.Normal(0.0, scale_of_prior)
        slopes = numpyro.sample("slopes", normal.expand([n_slopes]).to_event(1))
        shift = numpyro.sample("shift", normal)
        scale = numpyro.sample("scale", dist.HalfNormal(scale_of_prior))
        bent, last = features[-2], features[-1]
        plain = jnp.tensordot(slopes, features[:-2], 1)
        reward = reference.combine(form, plain, shift, scale, bent, last, jnp.exp)
        numpyro.factor("actions", log_likelihood(reward, transition, counts))

    return declared
