"""Looking inside a student (Rusu et al. 2016, App. D): t-SNE of what two of its layers make of the states it meets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polydistill.envs.base import VecEnv
from polydistill.evaluation.activations import BATCH, activations, first_layer
from polydistill.evaluation.recording import MakeEnv, Outputs
from polydistill.evaluation.screens import ObservationScreens, has_screens
from polydistill.nets.student import Student
from polydistill.rng import stream, torch_seed
from polydistill.tasks import Task

FILE = "embedding.npz"
INSTALL = "openTSNE is not installed: pip install 'polydistill[analyze]'"
LAYERS = ("first", "hidden")
LIMIT = 2_400  # states of all tasks together: bounds time and memory where there are many tasks
COMPONENTS = 50  # principal components that t-SNE is given at most
PERPLEXITY = 30.0  # van der Maaten & Hinton 2008 advise 5 to 50
NEIGHBOURS = 10


def embed(
    student: Student,
    values: Sequence[Outputs | None],
    *,
    seed: int,
    out: Path,
    states: int = 400,
    copies: int = 3,
    every: int = 8,
    epsilon: float = 0.05,
    make_env: MakeEnv | None = None,
) -> Path:
    """Let the student play, embed its activations in the plane by t-SNE, and write ``out/embedding.npz``.

    Of every ``every`` control steps of each copy one state is kept, drawn uniformly, so that a few hundred states reach
    far into the episodes. All tasks are embedded together. Each layer is reduced to 50 principal components first.

    The arrays (S states of all G tasks, K <= 3 G marked states):

    * ``task`` int64 ``[S]``: row of ``names``, text ``[G]``; ``value`` float32 ``[S]``: the teacher's max_a Q, NaN
      where it has none; ``position`` int32 ``[S]``: control steps since the episode began
    * of each layer (``first``: the first hidden layer; ``hidden``: the last) ``*_points`` float32 ``[S, 2]``, or
      ``[0, 2]`` if it cannot be shown; ``*_note`` text: why not; ``*_width``: its activations; ``*_within``: share of
      their variance that lies within tasks; ``*_same``: share of a state's ten nearest neighbours, in the components,
      that are of its own task
    * ``first_convolution``, ``first_shared`` bool: whether it is a convolution, and whether all tasks have the same one
    * ``marked`` int64 ``[K]``: of each task the states of least, median and greatest value, named in ``marked_as`` text
      ``[K]``; ``picture_0 ..`` uint8 ``[H, W]`` (H = 0 where an observation is no picture)
    * scalars ``copies``, ``every``, ``epsilon``, ``perplexity``, ``components``, ``seed``; ``note`` text: why nothing
      else is there, else empty

    Args:
        student: In evaluation mode.
        values: Per task the teacher, observations ``[N, *obs_shape]`` -> Q-values ``[N, n]``; None if it has none.
        states: Of each task; fewer where all tasks together would have more than 2,400.
        copies: Copies of a task that play at once.
        make_env: Opens the copies; by default :func:`polydistill.envs.suite.make_env` (Atari without sticky actions).
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    try:
        import openTSNE  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError:
        np.savez_compressed(path, note=np.array(INSTALL))
        return path
    tasks = student.suite.tasks
    states = min(states, max(1, LIMIT // len(tasks)))
    envs = [(make_env or _make_env)(task, copies) for task in tasks]
    try:
        obs, position = collect(student, envs, states=states, every=every, epsilon=epsilon, seed=seed)
    finally:
        for env in envs:
            env.close()
    arrays: dict[str, Any] = {
        "names": np.array([t.name for t in tasks]),
        "task": np.repeat(np.arange(len(tasks)), states),
        "value": np.concatenate([_value(v, o) for v, o in zip(values, obs, strict=True)]),
        "position": np.concatenate(position),
        "copies": copies,
        "every": every,
        "epsilon": epsilon,
        "seed": seed,
        "perplexity": PERPLEXITY,
        "components": COMPONENTS,
        "note": np.array(""),
    }
    arrays |= _layers(student, obs, arrays["task"], seed)
    marked = mark(arrays["task"], arrays["value"])
    arrays["marked"] = np.array([i for i, _ in marked], np.int64)
    arrays["marked_as"] = np.array([name for _, name in marked], "U16")
    for k, (i, _) in enumerate(marked):
        g, row = divmod(i, states)
        arrays[f"picture_{k}"] = _picture(tasks[g], obs[g][row])
    np.savez_compressed(path, **arrays)
    return path


def collect(
    student: Student, envs: Sequence[VecEnv], *, states: int, every: int, epsilon: float, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per task the observations ``[states, *obs_shape]`` kept, and the control steps since their episodes began.

    All tasks are played in step, so that one pass of the network serves them all. ``envs``: one of each task, with as
    many copies as the others; they are left open.
    """
    copies, own = envs[0].num_envs, [list(a) for a in student.suite.actions]
    device = next(student.parameters()).device
    rngs = [stream(seed, "embedding", env.task.name) for env in envs]
    obs = [env.reset(seed) for env in envs]
    steps = np.zeros((len(envs), copies), np.int32)
    chosen = np.zeros((len(envs), copies), np.int64)
    kept: list[list[np.ndarray]] = [[] for _ in envs]
    position: list[list[int]] = [[] for _ in envs]
    for t in range(every * -(-states // copies)):
        with torch.inference_mode():
            logits = student([torch.from_numpy(o).to(device) for o in obs]).logits.cpu().numpy()  # [G, copies, A]
        for g, (env, rng) in enumerate(zip(envs, rngs, strict=True)):
            if t % every == 0:
                chosen[g] = t + rng.integers(0, every, copies)  # one state of each copy, anywhere in the window
            for i in np.flatnonzero(chosen[g] == t):
                kept[g].append(obs[g][i].copy())
                position[g].append(int(steps[g, i]))
            explore, random = rng.random(copies) < epsilon, rng.integers(0, env.task.n_actions, copies)
            step = env.step(np.where(explore, random, logits[g][:, own[g]].argmax(-1)))
            obs[g], steps[g] = step.obs, np.where(step.ended, 0, steps[g] + 1)
    return [np.stack(k[:states]) for k in kept], [np.array(p[:states], np.int32) for p in position]


def within_share(x: np.ndarray, group: np.ndarray) -> float:
    """Share of the variance of ``x`` ``[S, D]`` that lies within the groups ``[S]``: 1 if all have one mean."""
    total = float(((x - x.mean(0)) ** 2).sum(dtype=np.float64))
    own = [x[group == g] for g in np.unique(group)]
    return sum(float(((rows - rows.mean(0)) ** 2).sum(dtype=np.float64)) for rows in own) / total


def same_share(x: np.ndarray, group: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Mean share of the nearest neighbours of each row of ``x`` ``[S, D]``, itself left out, that are of its group."""
    square = (x.astype(np.float64) ** 2).sum(1)
    distance = square[:, None] + square - 2 * (x.astype(np.float64) @ x.T)
    np.fill_diagonal(distance, np.inf)
    near = np.argpartition(distance, min(neighbours, len(x) - 1) - 1)[:, :neighbours]
    return float((group[near[:, : len(x) - 1]] == group[:, None]).mean())


def mark(task: np.ndarray, value: np.ndarray) -> list[tuple[int, str]]:
    """Of each task with values: which states ``[S]`` have the least, the median and the greatest, and those words."""
    chosen: dict[int, str] = {}
    for g in np.unique(task):
        rows = np.flatnonzero(task == g)
        if np.isfinite(value[rows]).all():
            order = rows[np.argsort(value[rows], kind="stable")]
            for name, i in (("lowest", order[0]), ("median", order[len(order) // 2]), ("highest", order[-1])):
                chosen.setdefault(int(i), name)
    return list(chosen.items())


def _layers(student: Student, obs: Sequence[np.ndarray], task: np.ndarray, seed: int) -> dict[str, Any]:
    device = next(student.parameters()).device
    with torch.inference_mode():
        firsts = [first_layer(student, torch.from_numpy(o[:1]).to(device), g) for g, o in enumerate(obs)]
    both = [activations(student, o, g, first) for g, (o, first) in enumerate(zip(obs, firsts, strict=True))]
    widths = {first.shape[1] for first, _ in both}
    arrays: dict[str, Any] = {
        "first_convolution": all(f is not None and f.convolution for f in firsts),
        "first_shared": len({id(f.module) for f in firsts if f is not None}) == 1,
    }
    for k, layer in enumerate(LAYERS):
        note = ""
        if layer == "first" and 0 in widths:
            note = "this network has no module that gives the activations of its first layer"
        elif layer == "first" and len(widths) > 1:
            note = f"the first layers of the tasks differ in size ({', '.join(map(str, sorted(widths)))})"
        x = np.concatenate([pair[k] for pair in both]) if not note else np.zeros((0, 0), np.float32)
        arrays |= {f"{layer}_{key}": v for key, v in _layer(x, task, note, torch_seed(seed, layer) % 2**32).items()}
    return arrays


def _layer(x: np.ndarray, task: np.ndarray, note: str, seed: int) -> dict[str, Any]:
    if not note and not np.isfinite(x).all():
        note = "its activations are not finite: the student has diverged"
    if not note and (len(x) < 8 or not np.ptp(x, axis=0).any()):
        note = "its activations are the same in every state" if len(x) >= 8 else "there are too few states"
    if note:
        nothing = {"points": np.zeros((0, 2), np.float32), "within": np.nan, "same": np.nan}
        return {**nothing, "width": x.shape[1], "note": np.array(note)}
    within = within_share(x, task)
    reduced = reduce(x, seed)
    return {
        "points": tsne(reduced, seed),
        "within": within,
        "same": same_share(reduced, task),
        "width": x.shape[1],
        "note": np.array(""),
    }


def reduce(x: np.ndarray, seed: int) -> np.ndarray:
    """The first principal components ``[S, <= 50]`` of ``x`` ``[S, D]``."""
    from sklearn.decomposition import PCA

    if min(x.shape) <= COMPONENTS:
        return x
    return np.asarray(PCA(COMPONENTS, svd_solver="randomized", random_state=seed).fit_transform(x))


def tsne(x: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE of ``x`` ``[S, D]`` in the plane, float32 ``[S, 2]``; one thread, so that a seed says it all."""
    from openTSNE import TSNE

    perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
    fitted = TSNE(perplexity=perplexity, neighbors="exact", negative_gradient_method="bh", random_state=seed, n_jobs=1)
    return np.asarray(fitted.fit(x), np.float32)


def _value(teacher: Outputs | None, obs: np.ndarray) -> np.ndarray:
    if teacher is None:
        return np.full(len(obs), np.nan, np.float32)
    batches = [teacher(obs[at : at + BATCH]).max(-1) for at in range(0, len(obs), BATCH)]
    return np.concatenate(batches).astype(np.float32)


def _picture(task: Task, obs: np.ndarray) -> np.ndarray:
    if not has_screens(task):
        return np.zeros((0, 0), np.uint8)
    return ObservationScreens().step(np.empty(0), obs[None])[0, :, :, 0]


def _make_env(task: Task, copies: int) -> VecEnv:
    from polydistill.envs.suite import make_env

    return make_env(task, copies, threads=1)
