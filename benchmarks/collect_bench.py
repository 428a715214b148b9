"""Control steps per second: bare emulator, emulator + memory, emulator + networks, all of it."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.parts import demo
from benchmarks.timing import Row, in_turns, row
from polydistill import build
from polydistill.envs.base import step_while
from polydistill.envs.suite import make_env
from polydistill.replay.memory import make_memory
from polydistill.replay.stacks import Stacks
from polydistill.tasks import Task
from polydistill.training.collect import Actor, ask_both

STEPS = 25  # vector steps of one measurement


def bare_env(task: Task, copies: int) -> object:
    """ale-py's own environment with the settings that ours gives it."""
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv(
        task.name,
        copies,
        num_threads=build.emulator_threads(),
        autoreset_mode="SameStep",
        reward_clipping=False,
        use_fire_reset=False,
    )
    env.reset(seed=0)
    return env


def random_actions(task: Task, copies: int, repeats: int) -> Row:
    """Random play into a memory against the bare environment with the same actions."""
    rng = np.random.default_rng(0)
    theirs, ours = bare_env(task, copies), make_env(task, copies, threads=build.emulator_threads())
    memory = make_memory(20_000, Stacks(task.obs_shape, task.stack, streams=copies), range(task.n_actions), 18)
    state = {"obs": ours.reset(0), "start": np.ones(copies, bool)}
    values = np.zeros((copies, task.n_actions), np.float32)
    choice = rng.integers(0, task.n_actions, (STEPS, copies))

    def collect() -> None:
        for actions in choice:
            step = step_while(ours, actions, lambda: memory.append(state["obs"], values, start=state["start"]))
            state["obs"], state["start"] = step.obs, step.ended

    def bare() -> None:
        for actions in choice:
            theirs.step(actions)  # type: ignore[attr-defined]

    a, b = in_turns(collect, bare, repeats)
    n = STEPS * copies
    return row(f"collect, random actions: {task.name}", n / a, n / b, "control steps/s", ">= 0.90")


def acting(g: int, copies: int, repeats: int) -> Row:
    """An actor at work against emulator and forward passes alone."""
    parts = demo()
    task, teacher = parts.suite.tasks[g], parts.teachers[g]
    memory = make_memory(20_000, Stacks(task.obs_shape, task.stack, streams=copies), range(task.n_actions), 18)
    behaviour = parts.recipe.behaviour.model_copy(
        update={"num_envs": copies, "epsilon_start": 0.05, "epsilon_end": 0.05}
    )
    env = make_env(task, copies, threads=build.emulator_threads())
    rng = np.random.default_rng(0)
    actor = Actor(g, env, teacher, parts.student, memory, behaviour, rng, 0, parts.device)
    theirs = bare_env(task, copies)
    ask = ask_both(teacher, parts.student, g)
    obs = torch.from_numpy(theirs.reset(seed=0)[0])  # type: ignore[attr-defined]

    def ours() -> None:
        for _ in range(STEPS):
            actor.step()

    def alone() -> None:
        nonlocal obs
        for _ in range(STEPS):
            values, *_ = ask(obs)
            obs = torch.from_numpy(theirs.step(values.argmax(1).numpy())[0])  # type: ignore[attr-defined]

    a, b = in_turns(ours, alone, repeats)
    n = STEPS * copies
    return row(f"collect, networks acting: {task.name}", n / a, n / b, "control steps/s", ">= 0.85")


def collect(copies: int = 16, repeats: int = 60) -> list[Row]:
    """All rows of this file, with as many copies of a game as the demo has."""
    tasks = demo().suite.tasks
    rows = [random_actions(task, copies, repeats) for task in tasks]
    return rows + [acting(g, copies, repeats) for g in range(len(tasks))]
