"""One game's H-PR memory filled past its capacity by real play: ``python -m benchmarks.memory_bench pong 1000000``.

Partitions evict at different times, so a compressed chunk stays while one of its frames is alive. This prints what
that costs: bytes per experience, living frames per stored one, and what the process holds. It takes minutes to an hour,
hence is not part of ``make bench``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from polydistill import build
from polydistill.envs.atari import atari_task
from polydistill.envs.suite import make_env
from polydistill.replay.memory import make_memory
from polydistill.replay.stacks import Stacks
from polydistill.teachers.zoo import load_teacher
from polydistill.training.folder import provenance
from polydistill.training.measure import value_range

COPIES = 32
ZOO = Path(__file__).resolve().parent.parent / "zoo"


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def fill(game: str, capacity: int, times: float = 1.5) -> list[dict[str, float]]:
    """Fill it with ``times`` its capacity; the exploration of the play falls from 1 to 0.1, as a student's would.

    A game without a teacher is played at random, and its values are made up: a slow wave, so that partitions fill and
    evict one after the other.
    """
    task = atari_task(game, "ale")
    teacher = load_teacher(ZOO / game) if (ZOO / game / "card.json").is_file() else None
    rng = np.random.default_rng(0)
    env = make_env(task, COPIES, threads=build.emulator_threads())
    limits = (-1.0, 1.0)
    if teacher is not None:
        limits = value_range(teacher, env, 5_000, rng, 1)
    stacks = Stacks(task.obs_shape, task.stack, streams=COPIES)
    before = resident()
    memory = make_memory(capacity, stacks, range(task.n_actions), 18, "hierarchical", value_range=limits)
    obs, start, made, found = env.reset(0), np.ones(COPIES, bool), 0, []
    total, began = int(times * capacity), time.perf_counter()
    report = max(total // 15, 1)
    while made < total:
        if teacher is not None:
            values = teacher(torch.from_numpy(obs)).values.numpy()
        else:
            phase = 2 * np.pi * (made / (capacity / 4) + np.arange(COPIES) / COPIES)
            values = np.repeat(np.sin(phase).astype(np.float32)[:, None], task.n_actions, 1)
        memory.append(obs, values, values.max(1), start, rng.random(COPIES))
        random = rng.random(COPIES) < max(0.1, 1 - made / (0.25 * total))
        step = env.step(np.where(random, rng.integers(0, task.n_actions, COPIES), values.argmax(1)))
        obs, start, made = step.obs, step.ended, made + COPIES
        if made % report < COPIES or made >= total:
            seconds = time.perf_counter() - began
            found.append(
                {
                    "put": made,
                    "stored": len(memory),
                    "living_frames_per_experience": len(stacks.frames) / len(memory),
                    "bytes_per_experience": memory.nbytes / len(memory),
                    "process_bytes_per_experience": (resident() - before) / len(memory),
                    "put_per_second": made / seconds,
                }
            )
            print(" | ".join(f"{key} {value:,.2f}" for key, value in found[-1].items()), flush=True)
    memory.sampler.check()
    stacks.frames.check()
    env.close()
    return found


def main() -> None:
    """Game and capacity from the command line; the outcome is added to ``benchmarks/out/memory.jsonl``."""
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: python -m benchmarks.memory_bench GAME CAPACITY")
    game, capacity = sys.argv[1], int(sys.argv[2])
    found = fill(game, capacity)
    out = Path(__file__).parent / "out" / "memory.jsonl"
    out.parent.mkdir(exist_ok=True)
    line = {**provenance(" ".join(sys.argv)), "game": game, "capacity": capacity, "found": found}
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
