"""What to write where Python, NumPy or torch refuse an expression of a reward program."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

CONDITIONS = (
    "A comparison has an entry for each time, state and action: combine several by &, | and ~ with "
    "each in parentheses, (x.a == 1) & (x.b > 2), in place of and, or, not and chains; choose by "
    "torch.where(condition, a, b) in place of if, and by torch.maximum and torch.minimum in place "
    "of max and min; ask for several labels by x.a.isin([...]) in place of in."
)
PARENTHESES = (
    "& and | bind closer than comparisons: put each comparison in parentheses, "
    "(x.a == 1) & (x.b > 2). Their sides are conditions: write y != 0 or y > 0 of a number y."
)
INDEX = (
    "Entries are picked from a tensor, by whole numbers: torch.as_tensor(array)[x.a.codes] by the "
    "position of a label, [x.time] by the time from 0."
)
ARRAY = "Make a tensor of a NumPy array before it meets tensors: torch.as_tensor(array)."
NUMBER = "Use torch's function of a tensor (torch.exp, torch.log ...), not math's or float()."

# what the message of an error says, and what to write; the first that fits counts
REMEDIES = [
    (r"Boolean value of Tensor", CONDITIONS),
    (r"unsupported operand type\(s\) for (&|\||\^)", PARENTHESES),
    (r"for ~|operator\.invert", "~ is for conditions: write 1 - y of a number y, or ~(y > 0)."),
    (r"used as indices|are valid indices|converted to an index|unhashable type", INDEX),
    (r"numpy|NumPy", ARRAY),
    (r"converted to Python scalars", NUMBER),
    (r"must be Tensor, not (int|float)", "Make a tensor of the number: torch.tensor(2.0)."),
]  # fmt: skip


@contextmanager
def with_remedy() -> Iterator[None]:
    """Add to a refusal of Python, NumPy or torch what a reward program writes instead."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        said = str(error)
        if "requires grad" in said:  # which the check of gradients names by site
            raise
        for pattern, remedy in REMEDIES:
            if re.search(pattern, said) and remedy not in said:
                kind = TypeError if isinstance(error, RuntimeError) else type(error)
                raise kind(f"{said.rstrip('.')}. {remedy}") from error
        raise
