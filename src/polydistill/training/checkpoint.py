"""Checkpoints that survive a kill at any moment: written beside, synced, verified by hash, put in place by rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polydistill.errors import UserError

MANIFEST = "MANIFEST.json"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What was saved.

    Attributes:
        step: The number it was saved under.
        tensors: Part -> name -> tensor.
        state: JSON-ready everything else.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write checkpoint ``step`` into ``folder``; remove all but the newest ``keep``, and what is left of broken ones.

    Until the last rename the older ones stay the newest. Whatever has a larger step belongs to a continuation that was
    given up (its checkpoint was damaged): it is removed too.

    Raises:
        UserError: the disk is full or not writable; what was there is untouched.
    """
    try:
        return _save(folder, step, tensors, state, keep)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write a checkpoint to {folder} ({error}); the earlier ones are intact") from error


def _save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tmp, final = folder / f".tmp-{step}-{os.getpid()}", folder / f"{step:010d}"
    for left in folder.glob(".tmp-*"):  # of a writer that was killed
        shutil.rmtree(left, ignore_errors=True)
    tmp.mkdir()
    try:
        for part, named in tensors.items():
            if named:
                save_file({k: v.detach().cpu().contiguous() for k, v in named.items()}, tmp / f"{part}.safetensors")
        (tmp / "state.json").write_text(json.dumps(dict(state)))
        files = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(tmp.iterdir())}
        (tmp / MANIFEST).write_text(json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1))
        for path in (*tmp.iterdir(), tmp):
            _sync(path)
        if final.exists():
            os.rename(final, folder / f".tmp-{step}-replaced")
        os.rename(tmp, final)
        _sync(folder)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise
    complete = _complete(folder)
    here = complete.index(final) + 1
    for old in (*complete[: max(0, here - keep)], *complete[here:], *folder.glob(".tmp-*")):
        shutil.rmtree(old, ignore_errors=True)
    return final


def held(folder: Path) -> bool:
    """Whether there is a checkpoint, sound or damaged."""
    return bool(_complete(folder))


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose every file is as it was written; None if there is none at all.

    Raises:
        UserError: there are checkpoints, but every one is damaged.
    """
    faults = []
    for path in reversed(_complete(folder)):
        fault = _fault(path)
        if fault is None:
            return _load(path)
        faults.append(f"{path}: {fault}")
    if faults:
        raise UserError(f"no usable checkpoint: {'; '.join(faults)}")
    return None


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """A NumPy generator's state, JSON-ready."""
    return dict(rng.bit_generator.state)


def restore_generator(rng: np.random.Generator, state: dict[str, Any]) -> None:
    """Undo :func:`generator_state`."""
    rng.bit_generator.state = state


def _complete(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.isdigit() and (p / MANIFEST).is_file())


def _fault(path: Path) -> str | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, this version reads {FORMAT}"
        for name, entry in manifest["files"].items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"] or _sha256(file) != entry["sha256"]:
                return f"{name} is damaged"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read ({error!r})"
    return None


def _load(path: Path) -> Checkpoint:
    tensors = {p.stem: load_file(p) for p in path.glob("*.safetensors")}
    return Checkpoint(int(path.name), tensors, json.loads((path / "state.json").read_text()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
