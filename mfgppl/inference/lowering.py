"""From a traced graph of tensor operations to plain NumPy source.

A reward program's prior is a few dozen operations on a handful of numbers, where dispatching each
through torch costs far more than the arithmetic. `lower` writes the graph out as Python source
over floats and arrays, with constants folded; a graph with an operation not listed here is left to
torch.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special
import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten


class Unlowered(Exception):
    """An operation without a NumPy form."""


def _infix(symbol: str) -> Callable[..., str]:
    return lambda a, b: f"({a} {symbol} {b})"


def _scaled(symbol: str) -> Callable[..., str]:
    """Additions carry an optional factor of the second operand."""
    return lambda a, b, alpha=1: f"({a} {symbol} {b if alpha == 1 else f'({alpha} * {b})'})"


def _call(name: str) -> Callable[..., str]:
    return lambda *a: f"{name}({', '.join(map(str, a))})"


def _clamp(x: str, low: Any = None, high: Any = None) -> str:
    x = f"np.maximum({x}, {low})" if low is not None else x
    return f"np.minimum({x}, {high})" if high is not None else x


def _slice(x: str, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> str:
    end = None if end is not None and end >= 2**62 else end
    return f"take_slice({x}, {dim}, {start}, {end}, {step})"


# source of each operation, given the source of its arguments
SOURCE: dict[Any, Callable[..., str]] = {
    aten.add: _scaled("+"),
    aten.sub: _scaled("-"),
    aten.mul: _infix("*"),
    aten.div: _infix("/"),
    aten.pow: _infix("**"),
    aten.eq: _infix("=="),
    aten.ne: _infix("!="),
    aten.lt: _infix("<"),
    aten.le: _infix("<="),
    aten.gt: _infix(">"),
    aten.ge: _infix(">="),
    aten.bitwise_and: _infix("&"),
    aten.bitwise_or: _infix("|"),
    aten.logical_and: _call("np.logical_and"),
    aten.logical_or: _call("np.logical_or"),
    aten.logical_not: _call("np.logical_not"),
    aten.bitwise_not: _call("np.logical_not"),
    aten.neg: lambda x: f"(-{x})",
    aten.reciprocal: lambda x: f"(1.0 / {x})",
    aten.rsqrt: lambda x: f"(1.0 / np.sqrt({x}))",
    aten.relu: lambda x: f"np.maximum({x}, 0)",
    aten.exp: _call("np.exp"),
    aten.expm1: _call("np.expm1"),
    aten.log: _call("np.log"),
    aten.log1p: _call("np.log1p"),
    aten.sqrt: _call("np.sqrt"),
    aten.abs: _call("np.abs"),
    aten.sign: _call("np.sign"),
    aten.tanh: _call("np.tanh"),
    aten.sin: _call("np.sin"),
    aten.cos: _call("np.cos"),
    aten.atan: _call("np.arctan"),
    aten.sigmoid: _call("special.expit"),
    aten.lgamma: _call("special.gammaln"),
    aten.digamma: _call("special.digamma"),
    aten.erf: _call("special.erf"),
    aten.maximum: _call("np.maximum"),
    aten.minimum: _call("np.minimum"),
    aten.isnan: _call("np.isnan"),
    aten.clamp: _clamp,
    aten.clamp_min: _clamp,
    aten.clamp_max: lambda x, high: _clamp(x, None, high),
    aten.where: _call("np.where"),
    aten.select: lambda x, dim, k: f"take({x}, {dim}, {k})",
    aten.slice: _slice,
    aten.view: lambda x, shape: f"np.reshape({x}, {shape})",
    aten._unsafe_view: lambda x, shape: f"np.reshape({x}, {shape})",
    aten.reshape: lambda x, shape: f"np.reshape({x}, {shape})",
    aten.expand: lambda x, shape, **_: f"expand({x}, {shape})",
    aten.unsqueeze: lambda x, dim: f"np.expand_dims({x}, {dim})",
    aten.squeeze: lambda x, dim=None: f"squeeze({x}, {dim})",
    aten.permute: lambda x, dims: f"np.transpose({x}, {dims})",
    aten.transpose: lambda x, a, b: f"np.swapaxes({x}, {a}, {b})",
    aten.t: lambda x: f"np.transpose({x})",
    aten.cat: lambda xs, dim=0: f"np.concatenate({xs}, {dim})",
    aten.stack: lambda xs, dim=0: f"np.stack({xs}, {dim})",
    aten.sum: lambda x, dim=None, keepdim=False, **_: f"total({x}, {dim}, {keepdim})",
    aten.mean: lambda x, dim=None, keepdim=False, **_: f"mean({x}, {dim}, {keepdim})",
    aten.amax: lambda x, dim=(), keepdim=False: f"amax({x}, {dim}, {keepdim})",
    aten.prod: lambda x, dim=None, keepdim=False, **_: f"np.prod({x}, {dim}, keepdims={keepdim})",
    aten.cumprod: lambda x, dim, **_: f"np.cumprod({x}, {dim})",
    aten.flip: _call("np.flip"),
    aten.constant_pad_nd: lambda x, pad, value=0: f"padded({x}, {pad}, {value})",
    aten.max: lambda x, dim, keepdim=False: f"top({x}, {dim}, {keepdim})",
    aten.gather: lambda x, dim, index, **_: f"np.take_along_axis({x}, {index}, {dim})",
    aten.any: lambda x, dim=None, keepdim=False: f"np.any({x}, {dim}, keepdims={keepdim})",
    aten.arange: lambda start, end=None, step=1, **_: f"np.arange({start}, {end}, {step})",
    operator.getitem: lambda x, k: f"{x}[{k}]",
    aten.cumsum: lambda x, dim, **_: f"np.cumsum({x}, {dim})",
    aten._softmax: lambda x, dim, _: f"special.softmax({x}, {dim})",
    aten._log_softmax: lambda x, dim, _: f"special.log_softmax({x}, {dim})",
    aten.copy: lambda _, source, *__: str(source),
    aten.scatter: lambda x, dim, index, value: f"put_along({x}, {index}, {value}, {dim})",
    aten.mm: _infix("@"),
    aten.mv: _infix("@"),
    aten.bmm: _infix("@"),
    aten.dot: _infix("@"),
    aten.addmm: lambda c, a, b: f"({c} + {a} @ {b})",
    aten.clone: lambda x, **_: str(x),
    aten.detach: str,
    aten.alias: str,
    aten.lift_fresh_copy: str,
    aten._to_copy: lambda x, dtype=None, **_: f"as_type({x}, {dtype})",
    aten.select_backward: lambda g, shape, dim, k: f"put({g}, {shape}, {dim}, {k})",
    aten.select_scatter: lambda x, g, dim, k: f"scatter({x}, {g}, {dim}, {k})",
    aten.slice_scatter: lambda x, g, dim=0, start=None, end=None, step=1: (
        f"scatter_slice({x}, {g}, {dim}, {start}, {end}, {step})"
    ),
    aten.slice_backward: lambda g, shape, dim, start, end, step: (
        f"scatter_slice(np.zeros({shape}), {g}, {dim}, {start}, {end}, {step})"
    ),
    aten.full: lambda shape, value, **_: f"np.full({shape}, {value})",
    aten.zeros: lambda shape, **_: f"np.zeros({shape})",
    aten.ones: lambda shape, **_: f"np.ones({shape})",
    aten.scalar_tensor: lambda x, **_: str(x),
    aten.ones_like: lambda x, **_: f"np.ones_like({x})",
    aten.zeros_like: lambda x, **_: f"np.zeros_like({x})",
    aten.full_like: lambda x, value, **_: f"np.full_like({x}, {value})",
    aten.index: lambda x, where: f"{x}[at({where})]",
    aten.index_put: lambda x, where, v, add=False: f"index_put({x}, {where}, {v}, {add})",
}
# a single number goes through `math`, ten times as fast
SCALAR = {aten.exp: "math.exp", aten.log: "math.log", aten.sqrt: "math.sqrt"}
SCALAR |= {aten.log1p: "math.log1p", aten.tanh: "math.tanh", aten.expm1: "math.expm1"}


def take(x: Any, dim: int, k: int) -> Any:
    """Return entry `k` along an axis."""
    return x[k] if dim == 0 else x[(slice(None),) * (dim % x.ndim) + (k,)]


def _at(x: Any, dim: int, start: Any, end: Any, step: int) -> tuple[slice, ...]:
    end = None if end is not None and end >= 2**62 else end
    return (slice(None),) * (dim % np.ndim(x)) + (slice(start, end, step),)


def take_slice(x: Any, dim: int, start: Any, end: Any, step: int) -> Any:
    """Return a slice along an axis."""
    return x[_at(x, dim, start, end, step)]


def put(g: Any, shape: Sequence[int], dim: int, k: int) -> np.ndarray:
    """Return zeros with `g` at entry `k` along an axis."""
    return scatter(np.zeros(shape), g, dim, k)


def scatter(x: np.ndarray, g: Any, dim: int, k: int) -> np.ndarray:
    """Return a copy of `x` with `g` at entry `k` along an axis."""
    out = x.copy()
    out[(slice(None),) * (dim % x.ndim) + (k,)] = g
    return out


def scatter_slice(x: np.ndarray, g: Any, dim: int, start: Any, end: Any, step: int) -> np.ndarray:
    """Return a copy of `x` with `g` in a slice along an axis."""
    out = x.copy()
    out[_at(x, dim, start, end, step)] = g
    return out


def expand(x: Any, shape: Sequence[int]) -> Any:
    """Broadcast to a shape, where -1 keeps an axis; a number stays one."""
    if len(shape) == 0:
        return x
    old = (1,) * (len(shape) - np.ndim(x)) + np.shape(x)
    new = tuple(o if n == -1 else n for o, n in zip(old, shape, strict=True))
    return np.broadcast_to(x, new)


def squeeze(x: Any, dim: Any) -> Any:
    """Drop axes of length one, all or those given."""
    dims = range(np.ndim(x)) if dim is None else np.atleast_1d(dim)
    keep = [d % np.ndim(x) for d in dims if np.shape(x)[d] == 1]
    return np.squeeze(x, tuple(keep))


def total(x: Any, dim: Any, keepdim: bool) -> Any:
    """Sum over axes, or over all; the sum of a number is that number."""
    if isinstance(x, float) or np.ndim(x) == 0:
        return x
    return x.sum(axis=tuple(dim) if dim else None, keepdims=keepdim)


def mean(x: Any, dim: Any, keepdim: bool) -> Any:
    """Average over axes, or over all."""
    return np.mean(x, axis=tuple(dim) if dim else None, keepdims=keepdim)


def amax(x: Any, dim: Any, keepdim: bool) -> Any:
    """Maximum over axes, or over all."""
    return np.max(x, axis=tuple(np.atleast_1d(dim)) if np.size(dim) else None, keepdims=keepdim)


def top(x: np.ndarray, dim: int, keepdim: bool) -> tuple[Any, Any]:
    """Return the maximum along an axis and where it stands."""
    return np.max(x, axis=dim, keepdims=keepdim), np.argmax(x, axis=dim, keepdims=keepdim)


def put_along(x: np.ndarray, index: np.ndarray, value: Any, dim: int) -> np.ndarray:
    """Return a copy of `x` with a value at an index along an axis."""
    out = np.array(x)
    np.put_along_axis(out, index, value, dim)
    return out


def at(where: Sequence[Any]) -> tuple[Any, ...]:
    """Return torch's list of indices as NumPy's, None standing for a whole axis."""
    return tuple(slice(None) if index is None else index for index in where)


def index_put(x: np.ndarray, where: Sequence[Any], values: Any, accumulate: bool) -> np.ndarray:
    """Return a copy of `x` with values put, or added, at indices."""
    out = np.array(x)
    if accumulate:
        np.add.at(out, at(where), values)
    else:
        out[at(where)] = values
    return out


def padded(x: np.ndarray, pad: Sequence[int], value: float) -> np.ndarray:
    """Pad (or crop, where negative) axes from the last one backwards, as torch counts them."""
    for k, axis in enumerate(range(x.ndim - 1, x.ndim - 1 - len(pad) // 2, -1)):
        low, high = pad[2 * k], pad[2 * k + 1]
        widths = [(0, 0)] * x.ndim
        widths[axis] = (max(low, 0), max(high, 0))
        x = np.pad(x, widths, constant_values=value)
        x = take_slice(x, axis, max(-low, 0), high if high < 0 else None, 1)
    return x


def as_type(x: Any, dtype: Any) -> Any:
    """Convert booleans and numbers; None keeps the type."""
    if dtype is None:
        return x
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    return float(x) if np.dtype(dtype).kind == "f" else np.dtype(dtype).type(x)


HELPERS: dict[str, Any] = {
    f.__name__: f
    for f in (
        take, take_slice, put, scatter, scatter_slice, expand, squeeze, total, mean, amax, as_type,
        top, put_along, at, index_put, padded,
    )
}  # fmt: skip
HELPERS |= {"np": np, "math": math, "special": scipy.special, "inf": math.inf, "nan": math.nan}


def lower(module: GraphModule) -> Callable[..., tuple[Any, ...]]:
    """Return a NumPy function that computes what a traced graph computes.

    Parameters
    ----------
    module : GraphModule
        A graph of ATen operations, of float64 inputs.

    Returns
    -------
    callable
        The same inputs and outputs, as floats and arrays.

    Raises
    ------
    Unlowered
        If the graph has an operation that is not listed.
    """
    module.graph.eliminate_dead_code()
    names: dict[Node, str] = {}
    constants: dict[Node, Any] = {}
    space: dict[str, Any] = dict(HELPERS)
    lines: list[str] = []
    inputs: list[str] = []
    output = ""

    def source(value: Any) -> Any:
        """Return the source of an argument, binding folded constants by name."""
        if isinstance(value, Node):
            if value in constants and value not in names:
                names[value] = f"c{len(space)}"
                space[names[value]] = _number(constants[value])
            return names[value]
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(str(source(v)) for v in value) + "]"
        if isinstance(value, torch.dtype):
            name = f"d{len(space)}"
            space[name] = torch.zeros((), dtype=value).numpy().dtype
            return name
        if isinstance(value, torch.device | torch.layout | torch.memory_format):
            return None
        return value

    for node in module.graph.nodes:
        if node.op == "placeholder":
            names[node] = f"i{len(inputs)}"
            inputs.append(names[node])
        elif node.op == "get_attr":
            constants[node] = getattr(module, str(node.target)).detach()
        elif node.op == "output":
            results = node.args[0] if isinstance(node.args[0], (list, tuple)) else [node.args[0]]
            output = "(" + "".join(f"{source(r)}, " for r in results) + ")"
        elif all(n in constants for n in node.all_input_nodes):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: constants[n])
            constants[node] = node.target(*args, **kwargs)
        else:
            names[node] = f"v{len(lines)}"
            lines.append(f"{names[node]} = {_line(node, source)}")
    text = f"def lowered({', '.join(inputs)}):\n    " + "\n    ".join([*lines, f"return {output}"])
    exec(compile(text, "<reward program>", "exec"), space)  # source of our own making
    lowered: Callable[..., tuple[Any, ...]] = space["lowered"]
    return lowered


def _line(node: Node, source: Callable[[Any], Any]) -> str:
    packet = getattr(node.target, "overloadpacket", node.target)
    if packet not in SOURCE:
        raise Unlowered(str(node.target))
    if packet is aten.squeeze and len(node.args) == 1:
        return f"squeeze({source(node.args[0])}, None)"
    if packet is aten.div and "rounding_mode" in node.kwargs:
        raise Unlowered("div with rounding")
    (x, *_) = node.all_input_nodes
    seen = x.meta.get("val", x.meta.get("tensor_meta"))
    single = len(getattr(seen, "shape", (1,))) == 0
    if packet in SCALAR and single:
        return f"{SCALAR[packet]}({source(x)})"
    keywords = {k: source(v) for k, v in node.kwargs.items()}
    dtype = keywords.pop("dtype", None)
    if packet is aten._to_copy:
        keywords = {"dtype": dtype}
    try:
        return SOURCE[packet](*map(source, node.args), **keywords)
    except TypeError as error:
        raise Unlowered(f"{node.target}: {error}") from None


def _number(value: torch.Tensor) -> Any:
    array = value.numpy()
    return array.item() if array.ndim == 0 else np.ascontiguousarray(array)
