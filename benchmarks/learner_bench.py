"""One joint update: ours against its bare arithmetic on ready tensors; and what drawing the minibatch adds."""

from __future__ import annotations

import numpy as np

from benchmarks.parts import actors, demo
from benchmarks.timing import Row, in_turns, row
from polydistill import build
from polydistill.ops.policy import distill_kl


def learner(repeats: int = 15) -> list[Row]:
    """Rows for the learner step and the sampling share."""
    parts = demo()
    made = actors(parts, 1_000)
    rectangle, ours = build.rectangle(parts, made), build.learner(parts)
    rng = np.random.default_rng(0)
    batch = rectangle.draw(rng)
    bare_optimizer = build.learner(parts).optimizer
    targets = batch.targets

    def step() -> None:
        ours.step(batch)

    def bare() -> None:
        loss = distill_kl(targets.values, parts.student(batch.obs).logits, targets.temperature, targets.valid).mean()
        bare_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        bare_optimizer.step()

    def draw() -> None:
        rectangle.draw(rng)

    a, b = in_turns(step, bare, repeats)
    shape = f"{len(parts.suite)} x {rectangle.batch}"
    rows = [row(f"learner step, {shape}", a * 1e3, b * 1e3, "ms", "<= 1.15")]
    drawing, stepping = in_turns(draw, step, repeats)
    rows.append(row(f"drawing the minibatch / learner step, {shape}", drawing * 1e3, stepping * 1e3, "ms", "<= 0.25"))
    for actor in made:
        actor.env.close()
    return rows


def bytes_per_experience(capacity: int = 4_000) -> list[Row]:
    """What one experience of trained play takes in a full memory, index and fixed costs included."""
    rows = []
    for actor in actors(demo(), capacity + 1_000, capacity):
        memory = actor.memory
        rows.append(
            row(f"bytes per experience: {actor.env.task.name}", memory.nbytes / len(memory), 1_500, "bytes", "<= 1")
        )
        actor.env.close()
    return rows
