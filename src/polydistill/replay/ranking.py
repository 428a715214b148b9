"""Slots in order of priority: exact ranks under changing priorities, at a few microseconds a batch.

Rank-based replay asks for "the slot of rank 4,711" dozens of times between two batches of changed priorities. Sorting
is too slow for that, and a binary heap read as an array is only roughly in order (Schaul et al. 2016, appendix B.2.1).

Here every slot has one integer key, ``group | priority, inverted | slot``: the smallest key comes first. Keys lie in
blocks, like the leaves of a B-tree. A block holds the keys between two boundaries, in no particular order, and the
blocks are in order among themselves. So a rank leads to its block by the cumulative counts, and only that block is
sorted. A changed priority moves a key from a place in one block to a free place in another; full blocks are split in
two. Counts are integers: nothing drifts. Changes are collected until somebody asks for a rank, and made together.
"""

from __future__ import annotations

import itertools

import numpy as np

from polydistill.errors import UserError

EMPTY = np.iinfo(np.int64).max  # above every key: sorting a block moves its free places to the end
_CHUNK = 1024  # ranks looked up at once; bounds the copy of their blocks
_PRIORITY_BITS = 31  # a float32 >= 0 without its sign: its bits, read as an integer, are in the order of the floats
_LARGEST = 0x7F7FFFFF  # the bits of the largest finite float32


def _layout(slots: int) -> tuple[int, int, int]:
    """Rows at most, places of a block, and keys of a block that is laid out anew."""
    width = 128 if slots < 3_000_000 else 256  # more to sort, but fewer to count (measured)
    packed = width * 3 // 4
    return -(-slots // packed) * 5 // 4 + 8, width, packed  # a quarter more to split into


class Ranking:
    """Slots by group, in each group by falling priority, equal priorities by slot number.

    Args:
        slots: Slot numbers are 0 .. slots - 1.
        groups: Group numbers are 0 .. groups - 1.

    Raises:
        UserError: slot and group numbers, or the places of the keys, need more than 31 bits.
    """

    def __init__(self, slots: int, groups: int = 1) -> None:
        self._bits = max(1, (slots - 1).bit_length())
        self._group_at = self._bits + _PRIORITY_BITS
        rows, self._width, self._packed = _layout(slots)
        if self._group_at + (groups - 1).bit_length() > 62 or rows * self._width > 2**31:
            raise UserError(
                f"{slots:,} experiences in {groups:,} partitions: their index has 31 bits; "
                "take a smaller capacity or fewer partitions"
            )
        self.slots, self.groups = slots, groups
        self._slot_mask = (1 << self._bits) - 1
        self._shift = self._width.bit_length() - 1
        # A block's keys stand in a row; rows stay where they are when a block is split.
        self._keys = np.empty((rows, self._width), np.int64)  # written when a row is first used
        self._flat = self._keys.reshape(-1)
        self._free = np.empty((rows, self._width), np.int32)  # of each row, from the number of its keys on: free places
        self._free_flat = self._free.reshape(-1)
        self._priority = np.zeros(slots, np.float32)
        self._group = np.full(slots, -1, np.int32)  # -1: not stored
        self._place = np.full(slots, -1, np.int32)  # slot -> the place in _flat where its key stands; -1: nowhere
        self._changed: list[np.ndarray] = []  # slots whose key in the blocks is out of date
        self._n_changed = 0
        self._block = np.zeros(rows, np.int64)  # row -> block
        self._ends: np.ndarray | None = None  # cumulative numbers of keys, once they are asked for
        self._lay_out(np.zeros(0, np.int64))

    # ------------------------------------------------------------------ asking
    def __len__(self) -> int:
        return int(np.count_nonzero(self._group >= 0))

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Slots of ranks 0 .. len(self) - 1, int64 [n]; the groups' ranks follow one another."""
        if self._changed:
            self._settle()
        n = len(ranks)
        if n > _CHUNK:
            return np.concatenate([self.select(ranks[i : i + _CHUNK]) for i in range(0, n, _CHUNK)])
        if self._ends is None:
            self._ends = self._count.cumsum()
        order = ranks.argsort()  # neighbours are found faster one after the other
        ranks = ranks[order]
        block = self._ends.searchsorted(ranks, "right")
        ranks -= self._ends[block]
        ranks += self._count[block]
        keys = self._keys.take(self._row[block], axis=0)
        keys.sort(axis=1)
        slots = np.empty_like(ranks)
        slots[order] = keys[np.arange(n), ranks] & self._slot_mask
        return slots

    def order(self) -> np.ndarray:
        """Every stored slot, first rank first, int64 [len(self)]."""
        return np.sort(self._keys_of(np.flatnonzero(self._group >= 0))) & self._slot_mask

    def priority(self, slots: np.ndarray) -> np.ndarray:
        """Priorities of stored slots, float32 [n]."""
        return self._priority[slots]

    def group(self, slots: np.ndarray) -> np.ndarray:
        """Groups of slots, int32 [n]; -1 where a slot is not stored."""
        return self._group[slots]

    def priority_sums(self) -> np.ndarray:
        """Sum of the priorities in each group, float64 [groups]. Reads all: 10 ms for a million."""
        stored = self._group >= 0
        return np.bincount(self._group[stored], self._priority[stored], self.groups)

    # ------------------------------------------------------------------ changing
    def is_stored(self, slots: np.ndarray) -> np.ndarray:
        """Which slots, int64 [n], are stored: bool [n]."""
        return self._group[slots] >= 0

    def insert(self, slots: np.ndarray, groups: np.ndarray, priority: np.ndarray) -> None:
        """Take in slots that are not stored, each once.

        Args:
            slots: int64 [n].
            groups: int64 [n].
            priority: contiguous float32 [n], finite, >= 0, no negative zeros (``Priorities.checked``).
        """
        self._priority[slots], self._group[slots] = priority, groups
        self._touch(slots)

    def remove(self, slots: np.ndarray) -> None:
        """Take out stored slots."""
        self._group[slots] = -1
        self._touch(slots)

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """New priorities, as for ``insert``, of stored slots, int64 [n]; of repeated slots the last counts."""
        self._priority[slots] = priority
        self._touch(slots)

    def _touch(self, slots: np.ndarray) -> None:
        self._changed.append(slots)
        self._n_changed += len(slots)
        if self._n_changed > self.slots:  # nobody asks: let the list not grow for ever
            self._settle()

    def _keys_of(self, slots: np.ndarray) -> np.ndarray:
        inverted = _LARGEST - self._priority[slots].view(np.int32).astype(np.int64)
        return (self._group[slots].astype(np.int64) << self._group_at) | (inverted << self._bits) | slots

    def _settle(self) -> None:
        """Move the keys of changed slots to where they belong."""
        slots = np.sort(np.concatenate(self._changed))
        slots = slots[_nth(slots) == 0]  # each once
        self._changed.clear()
        self._n_changed = 0
        place = self._place[slots].astype(np.int64)
        self._place[slots] = -1
        self._vacate(np.sort(place[place >= 0]))
        self._insert(np.sort(self._keys_of(slots[self._group[slots] >= 0])))

    def _vacate(self, place: np.ndarray) -> None:
        """Make places free, int64 [n] in order."""
        self._flat[place] = EMPTY
        row = place >> self._shift
        block = self._block[row]
        left = self._count[block] - 1 - _nth(row)
        self._count[block] = left  # of several keys in one row the last stands, and it is the smallest
        self._free_flat[(row << self._shift) + left] = place
        self._ends = None

    def _insert(self, keys: np.ndarray) -> None:
        """Take in keys, int64 [n] in order."""
        n, most = len(keys), self._width // 2
        if n > most and n > int(self._count.sum()) // 8:
            self._lay_out(np.sort(np.concatenate([self._in_order(), keys])))
            return
        while True:
            block = self._between.searchsorted(keys, "right")
            used = _nth(block)
            if n > most and used.max() >= most:  # more for one block than splitting it makes room for
                for i in range(0, n, most):
                    self._insert(keys[i : i + most])
                return
            used += self._count[block]
            full = block[used >= self._width]
            if not len(full):
                break
            self._split(full[_nth(full) == 0])
        at = self._free_flat[(self._row[block] << self._shift) + used].astype(np.int64)
        self._count[block] = used + 1  # of several keys for one block the last stands, and it is the largest
        self._flat[at] = keys
        self._place[keys & self._slot_mask] = at
        self._ends = None

    # ------------------------------------------------------------------ blocks
    def _split(self, full: np.ndarray) -> None:
        """Move the upper half of the keys of each of these blocks, int64 [m] in order, into a new one."""
        if self._blocks + len(full) > len(self._keys):
            self._lay_out(self._in_order())
            return
        old, new = self._row[full], self._blocks + np.arange(len(full))
        keys = np.sort(self._keys[old], axis=1)
        count, half = self._count[full, None], self._count[full, None] // 2
        column = np.arange(self._width)
        upper = keys[np.arange(len(full))[:, None], (column + half) % self._width]
        keys[column >= half] = EMPTY
        upper[column >= count - half] = EMPTY
        self._write(np.concatenate([old, new]), np.concatenate([keys, upper]))
        self._count[full] = half[:, 0]
        column = np.stack([new, upper[:, 0], (count - half)[:, 0]])
        ends = [0, *(full + 1).tolist(), self._blocks]
        parts = [self._index[:, a:b] for a, b in itertools.pairwise(ends)]
        news = [column[:, i : i + 1] for i in range(len(full))]
        self._use(np.concatenate([*itertools.chain(*zip(parts[:-1], news, strict=True)), parts[-1]], axis=1))

    def _write(self, rows: np.ndarray, keys: np.ndarray) -> None:
        """Fill rows, int64 [m], with keys, int64 [m, width], whose free places are at the end."""
        places = rows[:, None] * self._width + np.arange(self._width)
        self._keys[rows], self._free[rows] = keys, places
        there = keys != EMPTY
        self._place[keys[there] & self._slot_mask] = places[there]

    def _lay_out(self, keys: np.ndarray) -> None:
        """Begin anew with these keys, int64 [n] in order, every block three quarters full."""
        n, packed = len(keys), self._packed
        rows, whole = np.arange(max(1, -(-n // packed))), n // packed
        table = np.full((len(rows), self._width), EMPTY)
        table[:whole, :packed] = keys[: whole * packed].reshape(whole, packed)
        table[whole:, : n - whole * packed] = keys[whole * packed :]
        self._write(rows, table)
        self._use(np.stack([rows, table[:, 0], np.minimum(packed, n - packed * rows)]))

    def _use(self, index: np.ndarray) -> None:
        """Of each block, in order: its row, lower boundary and number of keys, int64 [3, blocks]."""
        self._index, self._blocks = index, index.shape[1]
        self._row, first, self._count = index
        self._between = first[1:]  # the first block takes whatever is below the second
        self._block[self._row] = np.arange(self._blocks)
        self._ends = None

    def _in_order(self) -> np.ndarray:
        keys = np.sort(self._keys[self._row], axis=1)
        return keys[keys != EMPTY]

    # ------------------------------------------------------------------ housekeeping
    def clear(self) -> None:
        """Take out everything."""
        self._group[:] = -1
        self._place[:] = -1
        self._changed.clear()
        self._n_changed = 0
        self._lay_out(np.zeros(0, np.int64))

    @staticmethod
    def bytes_of(slots: int) -> int:
        """``nbytes`` of what the constructor would make."""
        rows, width, _ = _layout(slots)
        return rows * (width * (8 + 4) + 4 * 8) + slots * (4 + 4 + 4)

    @property
    def nbytes(self) -> int:
        """Bytes held, those of rows not used yet included."""
        index = 4 * self._block.nbytes
        by_slot = self._priority.nbytes + self._group.nbytes + self._place.nbytes
        return self._keys.nbytes + self._free.nbytes + by_slot + index

    def check(self) -> None:
        """Raise AssertionError if an invariant broke. Slow."""
        if self._changed:
            self._settle()
        rows, blocks = self._row, np.arange(self._blocks)
        _true(np.array_equal(np.sort(rows), blocks), "rows in use are not the first ones")
        _true(np.array_equal(self._block[rows], blocks), "blocks and rows disagree")
        keys = np.sort(self._keys[rows], axis=1)
        alive = keys != EMPTY
        _true(np.array_equal(alive.sum(1), self._count), "keys miscounted")
        keys = keys[alive]
        _true(bool((np.diff(keys) > 0).all()), "blocks out of order")
        belongs = self._between.searchsorted(keys, "right")
        _true(np.array_equal(belongs, np.repeat(blocks, self._count)), "a key in the wrong block")
        used = np.arange(self._width) < self._count[:, None]
        free = np.sort(np.where(used, -1, self._free[rows]), axis=1)[np.sort(~used, axis=1)]
        where = rows[:, None] * self._width + np.arange(self._width)
        _true(np.array_equal(free, where[self._keys[rows] == EMPTY]), "free places miscounted")
        found = np.flatnonzero(self._place >= 0)
        _true(np.array_equal(found, np.flatnonzero(self._group >= 0)), "slots stored and slots placed differ")
        _true(np.array_equal(self._flat[self._place[found]], self._keys_of(found)), "a slot's key is not in its place")
        _true(self._ends is None or np.array_equal(self._ends, self._count.cumsum()), "cumulative counts are stale")


def _nth(ordered: np.ndarray) -> np.ndarray:
    """0, 1, 2, .. within each run of equal numbers."""
    return np.asarray(np.arange(len(ordered)) - ordered.searchsorted(ordered))


def _true(condition: object, broken: str) -> None:
    if not condition:
        raise AssertionError(f"ranking: {broken}")
