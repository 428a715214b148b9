"""What a sampler is handed, read as arrays; what would corrupt it is refused in one line, and nothing is changed.

Slots, values and priorities may come as lists. Arrays of the right kind pass untouched: these are hot paths.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from polydistill.errors import UserError

#: Which of the slots, int64 [n], all in range, are stored: bool [n].
IsStored = Callable[[np.ndarray], np.ndarray]


def whole(n: Any, what: str = "a number of experiences") -> int:
    """A whole number >= 0. Raises UserError for anything else."""
    try:
        number = operator.index(n)
    except TypeError:
        raise UserError(f"{what} is a whole number, not {n!r:.40}") from None
    if number < 0:
        raise UserError(f"{what} is 0 or more, not {number}")
    return number


def as_slots(slots: Any) -> np.ndarray:
    """Slots as int64 [n]. Raises UserError for what is no row of whole numbers."""
    if type(slots) is np.ndarray and slots.dtype == np.int64 and slots.ndim == 1:
        return slots
    array = _array(slots, "slots")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        found = f"{array.dtype} of shape {list(array.shape)}"
        raise UserError(f"slots are whole numbers of shape [n], not {found}; nothing was changed")
    return array.astype(np.int64)


def as_numbers(numbers: Any, n: int, what: str) -> np.ndarray:
    """One number for each of ``n`` experiences, as an array of shape [n]. Raises UserError for anything else."""
    array = numbers if type(numbers) is np.ndarray else _array(numbers, what)
    if array.shape != (n,):
        found = f"{array.size} {what}" if array.ndim == 1 else f"{what} of shape {list(array.shape)}"
        raise UserError(f"{found} for {n} experiences; nothing was changed")
    if array.dtype.kind not in "fiub" and n:
        raise UserError(f"{what} are numbers, not {array.dtype}; nothing was changed")
    return array


def as_values(values: Any, n: int) -> np.ndarray:
    """The values of ``n`` states, float64 [n]. Raises UserError for NaN and infinity, too."""
    array = as_numbers(values, n, "values").astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        raise UserError("the value of a state is NaN or infinite; nothing was changed")
    return array


def require_range(slots: np.ndarray, total: int) -> None:
    """Raise UserError unless these, int64 [n], are of 0 .. total - 1."""
    # item(argmin()) takes a fifth of the time of min().
    if len(slots) and not (slots.item(slots.argmin()) >= 0 and slots.item(slots.argmax()) < total):
        raise UserError(f"slots are 0 to {total - 1}, not {slots.min()} to {slots.max()}; nothing was changed")


def require_free(slots: np.ndarray, stored: int, total: int, is_stored: IsStored) -> None:
    """Raise UserError unless these, int64 [n], are slots of 0 .. total - 1, each once, and none of the ``stored``."""
    if stored + len(slots) > total:
        raise UserError(f"{len(slots)} slots put where {total - stored} are free; nothing was changed")
    if not len(slots):
        return
    ordered = np.sort(slots)
    if ordered[0] < 0 or ordered[-1] >= total:
        raise UserError(f"slots are 0 to {total - 1}, not {ordered[0]} to {ordered[-1]}; nothing was changed")
    if np.count_nonzero(ordered[1:] == ordered[:-1]) or np.count_nonzero(is_stored(ordered)):
        raise UserError("a slot is put that is stored already, or comes twice: put free slots; nothing was changed")


def require_stored(slots: np.ndarray, total: int, is_stored: IsStored) -> None:
    """Raise UserError unless these, int64 [n], are stored slots."""
    if not len(slots):
        return
    # item(argmin()) takes a fifth of the time of min().
    inside = slots.item(slots.argmin()) >= 0 and slots.item(slots.argmax()) < total
    there = is_stored(slots) if inside else (slots >= 0) & (slots < total)
    if np.count_nonzero(there) < len(slots):
        raise UserError(
            f"slot {slots[~there][0]} is not stored (any more): send new priorities before putting more experiences; "
            "nothing was changed"
        )


def _array(numbers: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(numbers)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # ragged; a tensor on a GPU or with a gradient
        raise UserError(f"{what} cannot be read as an array of numbers; nothing was changed") from None
