"""One game's H-PR memory filled past its capacity by real play: ``python -m benchmarks.memory_bench pong 1000000``.

Partitions evict at different times, so a compressed chunk stays while one of its frames is alive. This prints what
that costs: bytes counted per experience, living frames per stored one, and what the process holds. Play visits some
partitions so seldom that their queues are not full after any time that one would wait. So once 1.5 times the capacity
is put, half of the copies go on with made-up values in those partitions, until every queue is full: the last line is
about 5 x N. It takes minutes to hours, hence is not part of ``make bench``.
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
from polydistill.replay.memory import Memory, make_memory
from polydistill.replay.stacks import Stacks
from polydistill.teachers.zoo import load_teacher
from polydistill.training.folder import provenance
from polydistill.training.measure import value_range

COPIES = 32
STRETCH = 200  # control steps for which a copy's made-up value stays in one partition
ZOO = Path(__file__).resolve().parent.parent / "zoo"


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def made_up(value: np.ndarray, fill: np.ndarray, each: int, edges: np.ndarray, step: int) -> np.ndarray:
    """Values for partitions that are not full yet, float64 ``[n]``: every other copy's; the rest keep their own.

    Args:
        value: Of the states, float ``[n]``.
        fill: Experiences of each partition, int64 ``[p]``.
        each: What a full one holds.
        edges: Of the partitions, float64 ``[p + 1]``.
        step: Control steps so far. A copy stays in one partition for a stretch, as in play.
    """
    found = value.astype(np.float64)
    (wanting,) = np.nonzero(fill < each)
    if len(wanting):
        odd = np.arange(1, len(value), 2)
        chosen = wanting[(odd // 2 + step // STRETCH) % len(wanting)]
        found[odd] = (edges[chosen] + edges[chosen + 1]) / 2
    return found


def fill(game: str, capacity: int, times: float = 1.5, measure: int = 5_000) -> list[dict[str, float]]:
    """Put ``times`` the capacity, then fill what is not full; one entry for each fifteenth of the former.

    The exploration of the play falls from 1 to 0.1, as a student's would. A game without a teacher is played at random,
    and its values are made up: a slow wave, so that partitions fill and evict one after the other. The last entry is of
    full queues.

    Args:
        measure: Control steps of the teacher's play that give the range of its values.
    """
    task = atari_task(game, "ale")
    teacher = load_teacher(ZOO / game) if (ZOO / game / "card.json").is_file() else None
    rng = np.random.default_rng(0)
    env = make_env(task, COPIES, threads=build.emulator_threads())
    limits = (-1.0, 1.0)
    if teacher is not None:
        limits = value_range(teacher, env, measure, rng, 1)
    stacks = Stacks(task.obs_shape, task.stack, streams=COPIES)
    before = resident()
    memory = make_memory(capacity, stacks, range(task.n_actions), 18, "hierarchical", value_range=limits)
    obs, start, made, found = env.reset(0), np.ones(COPIES, bool), 0, []
    total, invented, began = int(times * capacity), 0, time.perf_counter()
    report = max(total // 15, 1)
    each, full = capacity // 5, False
    look = min(
        max(each // COPIES, 1), 50
    )  # control steps between two looks at the queues: one takes 10 ms of a million
    while not full:
        if teacher is not None:
            values = teacher(torch.from_numpy(obs)).values.numpy()
        else:
            phase = 2 * np.pi * (made / (capacity / 4) + np.arange(COPIES) / COPIES)
            values = np.repeat(np.sin(phase).astype(np.float32)[:, None], task.n_actions, 1)
        value = values.max(1)
        if made >= total:
            if not invented or made // COPIES % look == 0:
                told = memory.sampler.telemetry()
            value = made_up(value, told["fill"], each, told["edges"], made // COPIES)
            invented += COPIES // 2
        memory.append(obs, values, value.astype(np.float32), start, rng.random(COPIES))
        random = rng.random(COPIES) < max(0.1, 1 - made / (0.25 * total))
        step = env.step(np.where(random, rng.integers(0, task.n_actions, COPIES), values.argmax(1)))
        obs, start, made = step.obs, step.ended, made + COPIES
        full = made >= total and len(memory) >= 5 * each
        if made % report < COPIES or full:
            found.append(state(memory, capacity, made, invented, resident() - before, time.perf_counter() - began))
            print(" | ".join(f"{key} {value:,.2f}" for key, value in found[-1].items()), flush=True)
    memory.sampler.check()
    stacks.frames.check()
    env.close()
    return found


def state(memory: Memory, capacity: int, made: int, invented: int, process: int, seconds: float) -> dict[str, float]:
    """What the memory costs now; the process's bytes are those it holds more than before the memory was made."""
    stored = len(memory)
    return {
        "put": made,
        "of_them_with_made_up_values": invented / made,
        "stored": stored,
        "occupancy": stored / capacity,
        "living_frames_per_experience": len(memory.stacks.frames) / stored,
        "bytes_per_experience": memory.nbytes / stored,
        "process_bytes_per_experience": process / stored,
        "process_bytes_per_counted_byte": process / memory.nbytes,
        "put_per_second": made / seconds,
    }


def main() -> None:
    """Game and capacity from the command line; the outcome is added to ``benchmarks/out/memory.jsonl``."""
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: python -m benchmarks.memory_bench GAME CAPACITY")
    game, capacity = sys.argv[1], int(sys.argv[2])
    found = fill(game, capacity)
    counted, held = (found[-1][f"{what}bytes_per_experience"] for what in ("", "process_"))
    print(
        f"full, {found[-1]['stored']:,} of {game}: {counted:,.0f} bytes counted and {held:,.0f} held by the process "
        f"per experience; at that rate ten games of 1,000,000 are {counted / 100:.1f} and {held / 100:.1f} GB"
    )
    out = Path(__file__).parent / "out" / "memory.jsonl"
    out.parent.mkdir(exist_ok=True)
    line = {**provenance(" ".join(sys.argv)), "game": game, "capacity": capacity, "found": found}
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
