"""Slow, obvious twins of the prioritised samplers, which sort everything anew at every draw."""

from __future__ import annotations

import numpy as np


class SlowHierarchical:
    """H-PR with lists: the paper's equations word for word, for ``out_of_range: clamp`` and exact insertion.

    ``eviction``: ``partition``: each of p queues holds capacity // p; or ``oldest``: all share the capacity.
    """

    def __init__(
        self, capacity: int, partitions: int, alpha: float, low: float, high: float, eviction: str = "partition"
    ) -> None:
        self.alpha, self.low, self.width, self.p = alpha, low, (high - low) / partitions, partitions
        self.capacity, self.eviction = capacity, eviction
        self.queues: list[list[int]] = [[] for _ in range(partitions)]  # slots, oldest first
        self.came: list[int] = []  # slots of all partitions, oldest first
        self.priority: dict[int, np.float32] = {}
        self.largest = np.float32(1)

    def put(self, slots: list[int], value: np.ndarray, priority: np.ndarray | None) -> set[int]:
        gone = set()
        for i, slot in enumerate(slots):
            j = int(np.clip(np.ceil((value[i] - self.low) / self.width), 1, self.p)) - 1 if self.p > 1 else 0
            self.queues[j].append(slot)
            self.came.append(slot)
            self.priority[slot] = self.largest if priority is None else np.float32(priority[i])
            if self.eviction == "oldest" and len(self.came) > self.capacity:
                gone.add(self.leave(self.came[0]))
            if self.eviction == "partition" and len(self.queues[j]) > self.capacity // self.p:
                gone.add(self.leave(self.queues[j][0]))
        if priority is not None:
            self.largest = max([self.largest, *np.float32(priority)])
        return gone

    def leave(self, slot: int) -> int:
        next(queue for queue in self.queues if slot in queue).remove(slot)
        self.came.remove(slot)
        del self.priority[slot]
        return slot

    def drop(self, n: int) -> set[int]:
        gone = set()
        for _ in range(min(n, len(self.priority))):
            fullest = max(range(self.p), key=lambda j: (len(self.queues[j]), -j))
            gone.add(self.leave(self.came[0] if self.eviction == "oldest" else self.queues[fullest][0]))
        return gone

    def update(self, slots: list[int], priority: np.ndarray) -> None:
        for slot, value in zip(slots, np.float32(priority), strict=True):
            self.priority[slot] = value
            self.largest = max(self.largest, value)

    def ranked(self) -> list[list[int]]:
        """The slots of each partition by rank."""
        return [sorted(queue, key=lambda slot: (-self.priority[slot], slot)) for queue in self.queues]

    def law(self, beta: float) -> dict[int, tuple[float, float]]:
        """Of every slot: P_j(k), eq. 6 and 7, and w_j(k) = (1 / N_j * 1 / P_j[k])^beta, eq. 8, not normalised."""
        total, found = len(self.priority), {}
        for queue in self.ranked():
            sigma = [(1 / (k + 1)) ** self.alpha for k in range(len(queue))]
            for k, slot in enumerate(queue):
                inside = sigma[k] / sum(sigma)
                found[slot] = (len(queue) / total * inside, (1 / len(queue) / inside) ** beta)
        return found

    def draw(self, rng: np.random.Generator, n: int) -> tuple[list[int], list[float]]:
        """The same numbers from the same generator as the fast one: n for the partitions, n for the ranks."""
        total = sum(map(len, self.queues))
        which = rng.random(n) * total if self.p > 1 else np.zeros(n)
        ranked, ends = self.ranked(), np.cumsum([len(queue) for queue in self.queues])
        power = [[(k + 1) ** -self.alpha for k in range(len(queue))] for queue in ranked]
        drawn, prob = [], []
        for x, u in zip(which, rng.random(n), strict=True):
            j = int((ends <= x).sum())
            sums = np.cumsum(power[j])
            k = int((sums <= u * sums[-1]).sum())
            drawn.append(ranked[j][k])
            prob.append(len(ranked[j]) / total * power[j][k] / sum(power[j]))
        return drawn, prob
