"""Networks on disk: weights as safetensors, everything else as JSON. Nothing here can execute what it reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polydistill import nets
from polydistill.errors import UserError
from polydistill.nets.encoders import make_torso
from polydistill.nets.student import Student
from polydistill.tasks import Suite, Task

WEIGHTS, CONFIG = "student.safetensors", "config.json"
FORMAT = 1


def save_student(folder: Path, student: Student, kind: str) -> None:
    """Write ``student.safetensors`` (float32) and ``config.json``.

    Args:
        kind: Name of the network (:func:`polydistill.nets.make`).

    Raises:
        UserError: the disk is full or not writable.
    """
    torsos = getattr(student, "torsos", None)  # copied from teachers: each says what rebuilds it
    config = {
        "format": FORMAT,
        "kind": kind,
        "options": student.description(),
        "bf16": student.bf16,
        "torsos": None if torsos is None else [t.description() for t in torsos],
        "tasks": [t.to_dict() for t in student.suite.tasks],
        "axis": list(student.suite.axis),
    }
    write_weights(student.state_dict(), folder / WEIGHTS)
    write_json(config, folder / CONFIG)


def write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Replace a safetensors file in one rename.

    Raises:
        UserError: weights that are not finite, or the disk is full or not writable; the file is as it was.
    """
    if broken := _broken(weights):
        raise UserError(
            f"cannot write {path}: {broken} holds NaN or infinite weights, so training did not converge; try a "
            "smaller learning rate"
        )
    _replace(path, lambda tmp: save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, tmp))


def _broken(weights: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is not finite throughout."""
    return next((name for name, tensor in weights.items() if not torch.isfinite(tensor).all()), None)


def write_json(content: Mapping[str, object], path: Path) -> None:
    """Replace a JSON file in one rename.

    Raises:
        UserError: the disk is full or not writable; the file is as it was.
    """
    _replace(path, lambda tmp: tmp.write_text(json.dumps(content, indent=2) + "\n"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    tmp = path.with_name(f".{path.name}.tmp")
    try:
        tmp.touch()
        mode = tmp.stat().st_mode  # what the user's umask leaves; safetensors writes for its owner alone
        write(tmp)
        tmp.chmod(mode)
        os.replace(tmp, path)
    except (OSError, SafetensorError) as error:
        tmp.unlink(missing_ok=True)
        raise UserError(f"cannot write {path} ({_brief(error)})") from error


def load_student(folder: Path) -> Student:
    """The student of a run or export folder, in eval mode on the CPU.

    Raises:
        UserError: files missing, damaged, of another format, or tensors that do not fit (all are listed).
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"no student at {folder}: {name} is missing (a finished run has student.safetensors and config.json)"
            )
    try:
        config = json.loads((folder / CONFIG).read_text())
        if config["format"] != FORMAT:
            raise UserError(f"{folder / CONFIG}: format {config['format']!r}, this version reads {FORMAT}")
        suite = Suite(tuple(Task.from_dict(t, str(folder / CONFIG)) for t in config["tasks"]))
        if list(suite.axis) != config["axis"]:
            raise UserError(f"{folder / CONFIG}: the action axis is {config['axis']}, expected {list(suite.axis)}")
        if not isinstance(config["bf16"], bool):
            raise ValueError(f"bf16: {config['bf16']!r}")
        torsos = config["torsos"]
        if torsos is not None:
            torsos = [make_torso(t, **d) for t, d in zip(suite.tasks, torsos, strict=True)]
        student = nets.make(config["kind"], suite, bf16=config["bf16"], torsos=torsos, **config["options"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG}: damaged or not a student's config ({_brief(error)})") from None
    load_weights(student, folder / WEIGHTS)
    return student.eval()


def _brief(error: Exception) -> str:
    """One line of an exception's text."""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"


def load_weights(net: nn.Module, path: Path) -> None:
    """Fill ``net`` from a safetensors file, all tensors or none.

    Raises:
        UserError: unreadable file, weights that are not finite, or tensors that do not fit; every difference is listed.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: truncated or not a safetensors file ({error}); copy it again") from None
    expected = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    wrong = [
        f"{k}: expected {expected.get(k, 'no such tensor')}, found {tuple(found[k].shape) if k in found else 'nothing'}"
        for k in sorted(expected.keys() | found.keys())
        if k not in expected or k not in found or tuple(found[k].shape) != expected[k]
    ]
    if wrong:
        raise UserError(f"{path}: the tensors do not fit this network: {'; '.join(wrong)}")
    if broken := _broken(found):
        raise UserError(f"{path}: {broken} holds NaN or infinite weights; copy or train it again")
    net.load_state_dict(found)
