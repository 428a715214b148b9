"""Frames stored once: compressed in chunks of consecutive frames, reference-counted, bit for bit exact.

A chunk holds ``chunk`` consecutive frames of one stream (one environment) and is compressed with zstd level 1 when it
is full. Until then it lies raw in its stream's open buffer, so a frame can be read at once. Consecutive frames differ
little and zstd finds the repeats by itself: XOR against the previous frame made the chunks *larger* on Pong and
Breakout and cost time (docs/performance.md). A frame's id is ``chunk slot * chunk + offset``, so there is no table from
ids to places; the only index per frame is its reference count.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping

import numpy as np
import zstandard

from polydistill.replay.state import State, require

FREE, SEALED = -2, -1  # values of _owner; anything from 0 up is the stream whose open chunk it is
_MAX_ID = np.iinfo(np.int32).max  # memories keep ids in 4 bytes


def _held(payload: bytes) -> int:
    """Bytes that a ``bytes`` object takes from the allocator, which rounds up to 16."""
    return (sys.getsizeof(payload) + 15) // 16 * 16


class FrameStore:
    """Reference-counted frames of ``streams`` interleaved streams.

    Args:
        shape: Shape of one frame, e.g. ``(84, 84)``, or of a whole observation that is no image, e.g. ``(4,)``.
        dtype: dtype of the frames.
        streams: Number of streams; a stream is usually one environment.
        chunk: Frames per chunk. Larger compresses better; reading one frame unpacks its whole chunk.
        level: zstd level.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.typing.DTypeLike = np.uint8,
        streams: int = 1,
        chunk: int = 8,
        level: int = 1,
    ) -> None:
        self.shape, self.dtype, self.streams, self.chunk = tuple(shape), np.dtype(dtype), streams, chunk
        self._compress = zstandard.ZstdCompressor(level=level).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._buffer = np.zeros((streams, chunk, *self.shape), self.dtype)  # the open chunks, raw
        self._open = np.full(streams, -1, np.int64)  # stream -> its open chunk, -1: none
        self._fill = np.zeros(streams, np.int64)  # frames in it
        self._refs = np.zeros((0, chunk), np.int32)  # [chunk slots, chunk]
        self._owner = np.zeros(0, np.int32)  # [chunk slots] FREE, SEALED or a stream
        self._payload: list[bytes | None] = []  # [chunk slots]
        self._free = array("q")  # freed slots, last freed is used first
        self._used = 0  # slots below this one were used at least once
        self._payload_bytes = 0

    # ------------------------------------------------------------------ writing
    def add(self, stream: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Append one frame to each of ``n`` different streams; each starts with one reference, the caller's.

        Args:
            stream: int [n], each stream at most once.
            frames: [n, *shape] of the store's dtype.

        Returns:
            ids, int64 [n].
        """
        for s in stream[self._open[stream] < 0]:
            self._open[s], self._fill[s] = self._new_slot(), 0
            self._owner[self._open[s]] = s
        slot, at = self._open[stream], self._fill[stream]
        self._buffer[stream, at] = frames
        self._refs[slot, at] = 1
        self._fill[stream] = at + 1
        for s in stream[at + 1 == self.chunk]:
            self._seal(int(s))
        return slot * self.chunk + at

    def _new_slot(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == len(self._owner):
            more = max(64, len(self._owner) // 4)
            if (self._used + more) * self.chunk > _MAX_ID:
                raise OverflowError("more than 2^31 frames in one store")
            self._refs = np.concatenate([self._refs, np.zeros((more, self.chunk), np.int32)])
            self._owner = np.concatenate([self._owner, np.full(more, FREE, np.int32)])
            self._payload.extend([None] * more)
        self._used += 1
        return self._used - 1

    def _seal(self, stream: int) -> None:
        slot = int(self._open[stream])
        self._open[stream] = -1
        self._owner[slot] = SEALED
        self._put_payload(slot, self._packed(self._buffer[stream]))

    def _packed(self, frames: np.ndarray) -> bytes:
        # zstandard shrinks a worst-case buffer in place; kept, those leave holes that made the process 9 times larger
        # than its payloads. A copy has the right size, and the large buffer is used again.
        return memoryview(self._compress(frames.data)).tobytes()

    def _put_payload(self, slot: int, payload: bytes) -> None:
        old = self._payload[slot]
        self._payload_bytes += _held(payload) - (_held(old) if old is not None else 0)
        self._payload[slot] = payload

    def _release(self, slot: int) -> None:
        old = self._payload[slot]
        self._payload_bytes -= _held(old) if old is not None else 0
        self._payload[slot] = None
        self._owner[slot] = FREE
        self._free.append(slot)

    # ------------------------------------------------------------------ references
    def incref(self, ids: np.ndarray) -> None:
        """Add one reference per entry of ``ids`` (int [n], repeats count); every frame must be alive."""
        np.add.at(self._refs.reshape(-1), ids, 1)

    def decref(self, ids: np.ndarray) -> None:
        """Take one reference per entry of ``ids`` away; a chunk whose frames are all dead is freed."""
        refs = self._refs.reshape(-1)
        np.subtract.at(refs, ids, 1)
        dead = ids[refs[ids] <= 0]
        if not len(dead):
            return
        if refs[dead].min() < 0:
            raise AssertionError("a frame lost more references than it had")
        slots = dead // self.chunk
        slots = slots[(self._owner[slots] == SEALED) & ~self._refs[slots].any(1)]
        for slot in set(slots.tolist()):
            self._release(slot)

    # ------------------------------------------------------------------ reading
    def get(self, ids: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Frames by id, each needed chunk unpacked once.

        Args:
            ids: int [n], alive. Runs of consecutive ids of one chunk are copied as one piece.
            out: [n, *shape] to fill; a new array without it.

        Returns:
            [n, *shape].
        """
        n = len(ids)
        out = np.empty((n, *self.shape), self.dtype) if out is None else out
        if not n:
            return out
        slot, at = np.divmod(ids, self.chunk)
        breaks = np.flatnonzero((np.diff(ids) != 1) | (at[1:] == 0)) + 1
        begin = np.concatenate([np.zeros(1, np.int64), breaks])
        end = np.concatenate([breaks, np.full(1, n, np.int64)])
        order = np.argsort(slot[begin], kind="stable")
        begin, end = begin[order], end[order]
        slots, first = slot[begin], at[begin]
        unpacked, frames, shape = -1, out, (self.chunk, *self.shape)
        pieces = zip(
            slots.tolist(), self._owner[slots].tolist(), first.tolist(), begin.tolist(), end.tolist(), strict=True
        )
        for c, owner, f, a, b in pieces:
            if c != unpacked:
                if owner >= 0:
                    frames = self._buffer[owner]
                else:
                    frames = np.frombuffer(self._decompress(self._payload[c]), self.dtype).reshape(shape)
                unpacked = c
            out[a:b] = frames[f : f + b - a]
        return out

    # ------------------------------------------------------------------ size
    @property
    def nbytes(self) -> int:
        """Bytes held: compressed chunks with their object headers, index, open buffers. Costs nothing to ask."""
        index = self._refs.nbytes + self._owner.nbytes + 8 * len(self._payload) + 8 * len(self._free)
        return self._payload_bytes + index + self._buffer.nbytes + self._open.nbytes + self._fill.nbytes

    @property
    def references(self) -> np.ndarray:
        """References of every id ever handed out and of some that were not, int32; a view."""
        return self._refs.reshape(-1)

    def __len__(self) -> int:
        """Frames alive."""
        return int(np.count_nonzero(self._refs))

    # ------------------------------------------------------------------ state
    def state(self) -> State:
        """Everything, as raw arrays; the compressed chunks are joined into one, so this needs their size once more."""
        payload = [p or b"" for p in self._payload]
        return {
            "used": np.array(self._used, np.int64),
            "refs": self._refs.copy(),
            "owner": self._owner.copy(),
            "open": self._open.copy(),
            "fill": self._fill.copy(),
            "buffer": self._buffer.copy(),
            "free": np.array(self._free, np.int64),
            "length": np.array([len(p) for p in payload], np.int64),
            "payload": np.frombuffer(b"".join(payload), np.uint8),
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state.

        Raises:
            UserError: the state was saved by a store of another shape, or it is damaged.
        """
        n = len(state["owner"]) if "owner" in state else 0
        like = {"open": self._open, "fill": self._fill, "buffer": self._buffer, "owner": np.zeros(n, np.int32)}
        like |= {"refs": np.zeros((n, self.chunk), np.int32), "length": np.zeros(n, np.int64)}
        like |= {"used": np.zeros((), np.int64), "free": np.zeros(len(state.get("free", ())), np.int64)}
        require(state, like, "frame store")
        ends = np.cumsum(state["length"])
        require(state, {"payload": np.zeros(ends[-1] if n else 0, np.uint8)}, "frame store")
        self._used = int(state["used"])
        self._refs, self._owner = state["refs"].copy(), state["owner"].copy()
        self._open, self._fill, self._buffer = state["open"].copy(), state["fill"].copy(), state["buffer"].copy()
        self._free = array("q", state["free"].tolist())
        self._payload, self._payload_bytes = [None] * n, 0
        for slot in np.flatnonzero(state["length"]).tolist():
            self._put_payload(slot, state["payload"][ends[slot] - state["length"][slot] : ends[slot]].tobytes())

    def check(self) -> None:
        """Raise AssertionError if an invariant broke. Unpacks nothing; looks at every slot."""
        used, owner, refs = self._used, self._owner, self._refs
        _true((refs >= 0).all(), "a negative reference count")
        _true((owner[used:] == FREE).all() and not refs[used:].any(), "an untouched slot is in use")
        free = np.flatnonzero(owner[:used] == FREE)
        _true(np.array_equal(np.sort(np.array(self._free, np.int64)), free), "the free list is not the free slots")
        _true(not refs[free].any(), "a free chunk has living frames")
        has = np.array([p is not None for p in self._payload], bool)
        _true(np.array_equal(has, owner == SEALED), "sealed chunks are not those with a payload")
        _true(refs[owner == SEALED].any(1).all(), "a sealed chunk without living frames")
        _true(sum(_held(p) for p in self._payload if p is not None) == self._payload_bytes, "payload bytes miscounted")
        opened = np.flatnonzero(self._open >= 0)
        _true(np.array_equal(np.sort(self._open[opened]), np.flatnonzero(owner >= 0)), "open chunks disagree")
        _true((owner[self._open[opened]] == opened).all(), "an open chunk has the wrong stream")
        _true((self._fill[opened] < self.chunk).all(), "a full chunk is open")
        beyond = np.arange(self.chunk) >= self._fill[opened, None]
        _true(not refs[self._open[opened]][beyond].any(), "a frame that was never written is alive")


def _true(condition: object, broken: str) -> None:
    if not condition:
        raise AssertionError(f"frame store: {broken}")
