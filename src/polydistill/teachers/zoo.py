"""Teachers as folders: ``teacher.safetensors``, and ``card.json``, which says how to rebuild and trust it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError
from polydistill.nets.encoders import make_torso
from polydistill.nets.q_network import QNetwork
from polydistill.nets.store import load_weights, write_json, write_weights
from polydistill.settings import Settings
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.bodies import Body, BodyNetwork

WEIGHTS, CARD = "teacher.safetensors", "card.json"
FORMAT = 1


#: Units of a layer: a card cannot ask for a network that does not fit anywhere.
Width = Annotated[int, Field(ge=1, le=2048)]


class Network(Settings):
    """What rebuilds a teacher's network: the Nature DQN's sizes, or ``body``, a student's network, instead of them."""

    channels: tuple[Width, Width, Width] = (32, 64, 64)
    hidden: Width = 512
    norm: bool = False
    bf16: bool = False
    body: Body | None = None


class Played(Settings, extra="allow"):
    """A score on a card; what else stands there (interval, episodes, protocol) is for people."""

    mean: float


class Scores(Settings, extra="allow"):
    """Scores on a card, by protocol; ``random`` is the uniformly random policy's under ``noop``."""

    noop: Played | None = None
    random: float | None = None


class Card(Settings, extra="allow"):
    """What of ``card.json`` this program relies on; everything else there is for people."""

    task: dict[str, Any]
    network: Network
    kind: Literal["q", "logits"] = "q"
    rom_sha256: str | None = None
    scores: Scores = Scores()


def build_network(task: Task, network: Network, *, training: bool = False) -> QNetwork | BodyNetwork:
    """The Q-network a card describes, with fresh weights."""
    if network.body is not None:
        return BodyNetwork(task, network.body)
    torso = make_torso(task, network.channels, network.norm)
    return QNetwork(
        torso, task.n_actions, network.hidden, network.norm, bf16=network.bf16, bf16_hidden=network.bf16 and training
    )


def save_teacher(folder: Path, net: nn.Module, card: dict[str, Any]) -> None:
    """Write weights as float16 and the card into ``folder``.

    Raises:
        UserError: a weight that is no float16 number, or the disk is full or not writable. Nothing is written then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().to(torch.float16) for k, v in net.state_dict().items()}
    broken = [k for k, v in weights.items() if not torch.isfinite(v).all()]
    if broken:
        raise UserError(f"{folder}: {broken[0]} holds weights that are NaN, infinite or too large for float16")
    write_weights(weights, folder / WEIGHTS)
    write_card(folder, card)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Replace the card of a teacher's folder.

    Raises:
        UserError: the disk is full or not writable.
    """
    write_json({"format": FORMAT, **card}, folder / CARD)


def require_teachers(folders: Iterable[str | Path]) -> None:
    """Before any is loaded: no Atari game's folder is missing. Other folders are left to :func:`load_teacher`.

    Raises:
        UserError: naming all that are missing, and the command that trains them.
    """
    missing = [path for path in dict.fromkeys(map(Path, folders)) if not path.exists() and _is_game(path.name)]
    if missing:
        parent = missing[0].parent
        games = [path.name for path in missing if path.parent == parent]
        out = [] if parent == Path("zoo") else ["--out", str(parent)]
        raise UserError(
            f"no teacher at {', '.join(map(str, missing))}: start where the folder {parent} is, or train them with "
            f"`{shlex.join(['polydistill', 'teach', '--tasks', *games, *out])}`"
        )


def _is_game(name: str) -> bool:
    try:
        return resolve_task(name).kind == "atari"
    except UserError:
        return False


def load_teacher(folder: str | Path) -> Teacher:
    """Load a teacher's folder and check it against the game that is installed here.

    Raises:
        UserError: a file is missing or damaged, the card is of another format, the ROM or the action set is not the one
            the teacher was trained on, or a tensor is missing, surplus or of another shape (all are listed).
    """
    folder = Path(folder)
    content = read_card(folder)
    card = Card.parse(content, str(folder / CARD))
    task = _check_task(folder, Task.from_dict(card.task, f"{folder / CARD}, task"), card.rom_sha256)
    net = build_network(task, card.network)
    load_weights(net, folder / WEIGHTS)
    return Teacher(task, net, card.kind, folder, content)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a teacher's folder.

    Raises:
        UserError: no such folder or card, or not JSON of a known format.
    """
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"no teacher at {folder}: {name} is missing (a teacher is a folder such as zoo/pong)")
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / CARD}: damaged ({error}); copy the teacher again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise UserError(f"{folder / CARD}: card format {found!r}, this version reads {FORMAT}")
    return card


def _check_task(folder: Path, saved: Task, rom_sha256: str | None) -> Task:
    try:
        task = (
            resolve_task(saved.name, profile=saved.obs_profile) if saved.kind == "atari" else resolve_task(saved.name)
        )
    except UserError as error:
        raise UserError(f"{folder / CARD}: {error}") from None
    if task.action_meanings != saved.action_meanings:
        raise UserError(
            f"{folder}: the teacher acts with {', '.join(saved.action_meanings)}, "
            f"but {task.name} here has {', '.join(task.action_meanings)}"
        )
    if task.obs_shape != saved.obs_shape:
        raise UserError(f"{folder}: the teacher sees {saved.obs_shape}, but {task.name} here shows {task.obs_shape}")
    if task.kind == "atari":
        from polydistill.envs.atari import rom_hash

        here = rom_hash(task.name)
        if rom_sha256 not in (None, here):
            raise UserError(f"{folder}: trained on another ROM of {task.name} (card {rom_sha256:.12}, here {here:.12})")
    return task
