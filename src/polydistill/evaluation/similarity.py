"""Which sources may help a target: what their networks make of the target's observations.

Two measures, both free of any training. Linear CKA (Kornblith et al. 2019, "Similarity of Neural Network
Representations Revisited", section 3) says how alike two layers are. A linear read-out says what transfer needs: how
often the best action of the target's teacher can be read off a source's last hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from polydistill.envs.suite import make_env
from polydistill.errors import UserError
from polydistill.evaluation.markdown import escape, row
from polydistill.evaluation.protocol import EVALUATION_SEED_BASE
from polydistill.rng import seeded_init, stream
from polydistill.teachers.base import Teacher
from polydistill.teachers.sources import Source, open_source
from polydistill.teachers.zoo import Network, build_network, load_teacher

Floats = NDArray[np.float64]

BATCH = 256  # observations in one pass
COPIES = 8  # of the game that are played
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean squared length of a centred feature column
EPSILON = 0.05  # of the play: the evaluation's
UNTRAINED = "untrained network"


def linear_cka(x: Floats, y: Floats) -> float:
    """||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred features ``[n, p]`` and ``[n, q]``, in [0, 1].

    1 for equal features up to rotation, one factor and shifts. NaN where one side is constant.

    Raises:
        ValueError: other numbers of rows, or fewer than two.
    """
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"need the same two or more rows, found {len(x)} and {len(y)}")
    x, y = (np.asarray(z, np.float64) - np.mean(z, 0) for z in (x, y))
    across = np.linalg.norm(y.T @ x) ** 2
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(across / own) if own > 0 else float("nan")


def read_out(x: Floats, target: Floats, train: int, ridge: float) -> Floats:
    """A linear function of features ``[n, p]``, fitted to ``target`` ``[n, k]`` on the first ``train`` rows by ridge
    regression, on the other rows ``[n - train, k]``."""
    mean, level = x[:train].mean(0), target[:train].mean(0)
    centred = x[:train] - mean
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += ridge * max(float(np.trace(gram)) / len(gram), 1e-12)
    weights = np.linalg.solve(gram, centred.T @ (target[:train] - level))
    return np.asarray((x[train:] - mean) @ weights + level)


def held_out_agreement(x: Floats, q: Floats, train: int) -> float:
    """How often, on the rows from ``train`` on, the best action of ``q`` ``[n, k]`` is that of its linear read-out.

    The read-out is a least-squares classifier. Its ridge is the one of :data:`RIDGES` that does best on the last
    quarter of the ``train`` rows when it is fitted to the others.
    """
    best = q.argmax(1)
    hot = np.eye(q.shape[1])[best]
    inner = 3 * train // 4

    def agreement(rows: int, first: int, ridge: float) -> float:
        return float(np.mean(read_out(x[:rows], hot[:rows], first, ridge).argmax(1) == best[first:rows]))

    chosen = max(RIDGES, key=lambda ridge: agreement(train, inner, ridge))
    return agreement(len(x), train, chosen)


@dataclass(frozen=True)
class Similarity:
    """One source against the target.

    Attributes:
        source: Its folder, and the task whose layers they are where a run's tasks have layers of their own.
        cka: Of the last hidden layers.
        agreement: See :func:`held_out_agreement`, on other episodes than it was fitted to.
        chance: What the target's most frequent action would reach.
    """

    source: str
    cka: float
    agreement: float
    chance: float


def compare_sources(
    target: Path, sources: Sequence[Path], observations: int = 2000, seed: int = 1, device: str = "cpu"
) -> list[Similarity]:
    """Sources against a target's teacher, the one with the best read-out first; last an untrained network, as a floor.

    A run whose tasks have last hidden layers of their own has a row for each of them; one whose tasks share it has one
    row, as nothing says which of its tasks it owes what.

    Raises:
        UserError: a folder without a network, other observations than the target's, or too few observations.
    """
    if observations < 20:
        raise UserError(f"--observations {observations}: at least 20 are needed")
    teacher = load_teacher(target).to(device)
    if teacher.feature_length is None:
        raise UserError(f"--target {target}: its network shows no features")
    opened = [open_source(path) for path in sources]
    nets = [
        {t: s.network_for(teacher.task, "keep18", like=t, training=False).net for t in s.fitting(teacher.task)}
        for s in opened
    ]
    obs = _play(teacher, observations, seed)
    half = len(obs) // 2  # four of the copies: other episodes than the other four
    q = np.concatenate([teacher(torch.from_numpy(o).to(device)).values.cpu().numpy() for o in _batches(obs)])
    q = q.astype(np.float64)
    own = _features(teacher.net, obs, device)
    with seeded_init(seed, "untrained"):
        blank = build_network(teacher.task, Network.model_validate(teacher.card["network"]))
    chance = float(np.bincount(q[half:].argmax(1)).max() / (len(obs) - half))
    shown = [pair for s, of_task in zip(opened, nets, strict=True) for pair in _shown(s, of_task, obs, device)]
    shown.append((UNTRAINED, _features(blank.to(device).eval(), obs, device)))
    rows = [Similarity(name, linear_cka(x, own), held_out_agreement(x, q, half), chance) for name, x in shown]
    return [*sorted(rows[:-1], key=lambda r: -r.agreement), rows[-1]]


def sources_table(rows: Sequence[Similarity], target: str) -> str:
    """The comparison as a Markdown table."""
    lines = [row(["source", "last hidden layer, CKA", "best action read off, %"]), row(["---", "---:", "---:"])]
    lines += [row([escape(r.source), f"{r.cka:.3f}", f"{100 * r.agreement:.1f}"]) for r in rows]
    note = (
        f"On observations of {target} at play; read off in other episodes than fitted to. Its most frequent action "
        f"alone: {100 * rows[0].chance:.1f} %."
    )
    return "\n".join([*lines, "", note])


def _shown(source: Source, nets: Mapping[str, nn.Module], obs: np.ndarray, device: str) -> list[tuple[str, Floats]]:
    """What each of a source's networks makes of the target, by what it is called; of equal ones the first."""
    found: dict[str, Floats] = {}
    for name, net in nets.items():
        theirs = _features(net.to(device).eval(), obs, device)
        if not any(np.array_equal(theirs, other) for other in found.values()):
            found[name] = theirs
    return [(f"{source.path} ({name})" if len(found) > 1 else str(source.path), x) for name, x in found.items()]


def _play(teacher: Teacher, observations: int, seed: int) -> np.ndarray:
    """At least so many observations of the teacher's play with a few random actions, one copy of the game after the
    other. Every fourth step is kept, as neighbouring ones are nearly equal."""
    env = make_env(teacher.task, COPIES)
    rng, kept = stream(seed, "sources"), []
    try:
        obs = env.reset(EVALUATION_SEED_BASE + seed)
        for t in range(4 * -(-observations // COPIES)):
            if t % 4 == 0:
                kept.append(obs.copy())
            random = rng.random(COPIES) < EPSILON
            drawn = rng.integers(0, teacher.task.n_actions, COPIES)
            obs = env.step(np.where(random, drawn, teacher.greedy(obs))).obs
    finally:
        env.close()
    return np.stack(kept, 1).reshape(-1, *teacher.task.obs_shape)


def _features(net: nn.Module, obs: np.ndarray, device: str) -> Floats:
    made: Any = net
    with torch.inference_mode():
        parts = [made.last_hidden(made.encode(torch.from_numpy(o).to(device))).float().cpu() for o in _batches(obs)]
    return torch.cat(parts).numpy().astype(np.float64)


def _batches(obs: np.ndarray) -> list[np.ndarray]:
    return [obs[at : at + BATCH] for at in range(0, len(obs), BATCH)]
