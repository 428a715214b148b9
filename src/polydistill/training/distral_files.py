"""Distral's networks as files: what remains of a run when its training is over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from polydistill.algorithms.distral import AGENTS
from polydistill.errors import UserError
from polydistill.nets.store import load_weights, write_json, write_weights
from polydistill.tasks import Task
from polydistill.training.distral_networks import Networks

WEIGHTS, CONFIG = "policies.safetensors", "policies.json"
FORMAT = 1


@dataclass(frozen=True)
class Saved:
    """The networks of a run, in eval mode on the CPU.

    Attributes:
        agent: Its name, one of Table 1's seven.
        seed: The run's.
        updates, control_steps: How long it has been trained; control steps of all tasks together.
    """

    nets: Networks
    tasks: tuple[Task, ...]
    agent: str
    seed: int
    updates: int
    control_steps: int


def save(folder: Path, saved: Saved, hidden: int, lstm: int) -> None:
    """Write ``policies.safetensors`` and ``policies.json``, each in one rename; :func:`load` reads them.

    Raises:
        UserError: the disk is full or not writable.
    """
    config = {
        "format": FORMAT, "agent": saved.agent, "hidden": hidden, "lstm": lstm, "seed": saved.seed,
        "updates": saved.updates, "control_steps": saved.control_steps, "tasks": [t.to_dict() for t in saved.tasks],
    }  # fmt: skip
    write_weights(saved.nets.state_dict(), folder / WEIGHTS)
    write_json(config, folder / CONFIG)


def load(folder: Path) -> Saved:
    """The networks in a run's folder.

    Raises:
        UserError: files missing, damaged, of another format, or tensors that do not fit.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
        if config["format"] != FORMAT:
            raise UserError(f"{path}: format {config['format']!r}, this version reads {FORMAT}")
        tasks = tuple(Task.from_dict(task, str(path)) for task in config["tasks"])
        nets = Networks(AGENTS[config["agent"]], tasks, config["hidden"], config["lstm"])
        saved = Saved(nets, tasks, *(config[key] for key in ("agent", "seed", "updates", "control_steps")))
        if not all(type(n) is int for n in (saved.seed, saved.updates, saved.control_steps)):
            raise ValueError("seed, updates and control_steps are whole numbers")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path}: damaged or not Distral's ({type(error).__name__}: {told:.200})") from None
    load_weights(nets, folder / WEIGHTS)
    nets.eval()
    return saved
