"""Bundles of starts on disk: one JSON file per task, with actions as zlib-compressed uint8 in base64 and a checksum."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from polydistill.envs.base import EVALUATION_SEED_BASE
from polydistill.errors import UserError
from polydistill.evaluation.starts import WITHIN, Bundle, Origin, Start, remake
from polydistill.settings import Settings
from polydistill.tasks import Task

FORMAT = 1
#: Bundles that come with the package.
SHIPPED = Path(__file__).resolve().parent.parent / "starts"


def file_name(task: str) -> str:
    """``pong.json``, ``gym_CartPole-v1.json``."""
    return re.sub(r"[^\w.-]", "_", task) + ".json"


def find(task: Task, where: str | Path | None = None, count: int | None = None) -> Bundle:
    """The bundle of ``task``, checked against the task that is installed here.

    Args:
        where: A bundle, or a folder with one ``<task>.json`` per task; None for those that come with the package.
        count: How many starts are wanted; None for all.

    Raises:
        UserError: there is none, or it is damaged, empty, too small, or of another game or ROM.
    """
    path = SHIPPED if where is None else Path(where)
    if path.is_dir():
        if not (path / file_name(task.name)).is_file():
            known = ", ".join(sorted(p.stem for p in path.glob("*.json"))) or "none"
            there = "come with polydistill" if where is None else f"are in {path}"
            raise UserError(f"no starts of {task.name}: bundles that {there}: {known}; {remake(task.name)}")
        path = path / file_name(task.name)
    bundle = read(path)
    bundle.require(task, count)
    return bundle


class _File(Settings):
    format: Literal[1]
    task: str
    action_meanings: tuple[str, ...]
    rom_sha256: str | None
    origin: Origin
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    episode_steps: tuple[int, ...]
    hashes: dict[str, tuple[str, ...]]
    actions: str


def write(bundle: Bundle, path: Path) -> None:
    """Write a bundle in one rename.

    Raises:
        ValueError: there is no start.
    """
    if not bundle.starts:
        raise ValueError("a bundle needs at least one start")
    actions = np.concatenate([s.actions for s in bundle.starts]).astype(np.uint8)
    content = {
        "format": FORMAT,
        "task": bundle.task,
        "action_meanings": list(bundle.action_meanings),
        "rom_sha256": bundle.rom_sha256,
        "origin": bundle.origin.model_dump(),
        "seeds": [s.seed for s in bundle.starts],
        "steps": [len(s.actions) for s in bundle.starts],
        "episode_steps": [s.episode_steps for s in bundle.starts],
        "hashes": {name: [s.hashes[name] for s in bundle.starts] for name in bundle.starts[0].hashes},
        "actions": base64.b64encode(zlib.compress(actions.tobytes(), 9)).decode(),
    }
    tmp = path.with_name(f".{path.name}.tmp")
    try:
        tmp.write_text(sealed(content))
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def sealed(content: Mapping[str, Any]) -> str:
    """The text of a bundle: one line per key, and a checksum over the others as the last one."""
    lines = (f'"{key}": {json.dumps(value)}' for key, value in {**content, "sha256": _checksum(content)}.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> Bundle:
    """Read a bundle. Whether its starts are reached again is seen when they are played: :meth:`Bundle.verify`.

    Raises:
        UserError: no such file, damaged, of another format, or empty.
    """
    try:
        content = json.loads(path.read_bytes().decode())
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {type(content).__name__}")
        seal = content.pop("sha256", None)
        if seal != _checksum(content):
            raise ValueError("its checksum is wrong" if seal else "it has no checksum")
    except FileNotFoundError:
        raise UserError(f"no bundle of starts at {path}; polydistill starts --help says how one is made") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged or no bundle of starts ({' '.join(str(error).split())})") from None
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: bundle format {content.get('format')!r}, this version reads {FORMAT}")
    file = _File.parse(content, str(path))
    if not file.seeds:
        raise UserError(f"{path}: an empty bundle, there is no start in it; {remake(file.task)}")
    try:
        starts = tuple(_starts(file))
    except ValueError as error:
        raise UserError(f"{path}: not a bundle that polydistill wrote ({error})") from None
    return Bundle(file.task, file.action_meanings, file.rom_sha256, file.origin, starts, path)


def _starts(file: _File) -> Iterator[Start]:
    if min(file.seeds) < EVALUATION_SEED_BASE:
        raise ValueError(f"seed {min(file.seeds)} is one for training")
    for steps, whole in zip(file.steps, file.episode_steps, strict=True):
        if not 0 <= steps <= WITHIN * whole:
            raise ValueError(f"step {steps} is not within the first {WITHIN:.0%} of {whole}")
    total = sum(file.steps)
    try:
        raw = zlib.decompressobj().decompress(base64.b64decode(file.actions, validate=True), total + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    actions = np.frombuffer(raw, dtype=np.uint8)
    if len(actions) != total or (total and actions.max() >= len(file.action_meanings)):
        raise ValueError("its actions are not the task's, or too few or too many")
    logs = np.split(actions, np.cumsum(file.steps)[:-1])
    columns = zip(*file.hashes.values(), strict=True) if file.hashes else ((),) * len(file.seeds)
    for seed, log, whole, row in zip(file.seeds, logs, file.episode_steps, columns, strict=True):
        yield Start(seed, log, whole, dict(zip(file.hashes, row, strict=True)))
