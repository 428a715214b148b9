"""A run's folder: one owner at a time, append-only logs, JSON and YAML a person can read."""

from __future__ import annotations

import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml

from polydistill.errors import UserError
from polydistill.replay.sizing import machine_memory

LOCK = ".lock"

ALONE = "emulator_steps_per_s"  # in a teacher's run.json: control steps per second of its game when nobody learns

#: A folder is ours if one of these JSON files is in it and has these keys: ``--overwrite`` removes nothing else.
OURS = {"run.json": ("command", "versions"), "card.json": ("format", "task")}


def require_usable(path: Path, *, resume: bool = False, overwrite: bool = False, teacher: bool = False) -> None:
    """What :class:`RunFolder` asks of a folder before it takes it; for work that should not begin in vain.

    Args:
        teacher: Whether a teacher may be replaced: only by what makes one.

    Raises:
        UserError: it holds a run and neither flag is set, there is nothing to resume, or it is not of this program.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path} is a file: name a folder")
    try:
        held = path.is_dir() and any(p.name != LOCK for p in path.iterdir())
    except OSError as error:
        raise UserError(f"cannot read --out {path}: {error.strerror}; choose another folder") from None
    if resume and overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it: give one of them")
    if resume and not held:
        raise UserError(f"nothing to resume at {path}: start without --resume")
    if held and not _is_ours(path):
        raise UserError(f"--out {path} is not empty and not a run: choose another folder")
    if overwrite and not teacher and (path / "card.json").is_file():
        raise UserError(f"--out {path} holds a teacher, which --overwrite does not replace: choose another folder")
    if held and not (resume or overwrite):
        raise UserError(f"--out {path} holds a run: add --resume to continue it or --overwrite to replace it")


class RunFolder:
    """An output folder held by this process until :meth:`close` (the lock dies with the process).

    Args:
        path: The folder; made if missing.
        resume: Continue what is there.
        overwrite: Remove an earlier run that is there. Only folders this program wrote are removed.
        teacher: As :func:`require_usable`.

    Raises:
        UserError: it holds a run and neither flag is set, another process writes to it, it is read-only, or it is not a
            folder of this program.
    """

    def __init__(self, path: Path, *, resume: bool = False, overwrite: bool = False, teacher: bool = False):
        self.path = path
        require_usable(path, resume=resume, overwrite=overwrite, teacher=teacher)
        self._lock = self._acquire()
        if overwrite:
            for child in path.iterdir():
                if child.name != LOCK:
                    shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()

    def _acquire(self) -> TextIO:
        path = self.path / LOCK
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = path.open("a+")
        except OSError as error:
            raise UserError(f"cannot write to --out {self.path}: {error.strerror}; choose another folder") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise UserError(f"--out {self.path} is in use by {holder}: choose another folder or wait") from None
        if not _is_file_of(path, lock):  # its owner removed it between our open and our lock
            lock.close()
            return self._acquire()
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        return lock

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Replace a JSON file in one rename."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_yaml(self, name: str, content: dict[str, Any]) -> None:
        """Replace a YAML file in one rename."""
        self.write_text(name, yaml.safe_dump(content, sort_keys=False))

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file in one rename.

        Raises:
            UserError: the disk is full or not writable; the file is as it was.
        """
        tmp = self.path / f".{name}.tmp"
        try:
            tmp.write_text(text)
            os.replace(tmp, self.path / name)
        except OSError as error:
            tmp.unlink(missing_ok=True)
            raise UserError(f"cannot write {self.path / name}: {error.strerror}") from error

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add one JSON line.

        Raises:
            UserError: the disk is full or not writable.
        """
        try:
            with (self.path / name).open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path / name}: {error.strerror}") from error

    def truncate(self, name: str, size: int) -> None:
        """Cut a log back to where a checkpoint left it, so that a resumed run has no row twice."""
        path = self.path / name
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)

    def size(self, name: str) -> int:
        """Bytes of a log; 0 if there is none."""
        path = self.path / name
        return path.stat().st_size if path.exists() else 0

    def close(self) -> None:
        """Release the folder."""
        (self.path / LOCK).unlink(missing_ok=True)  # while it is still ours
        self._lock.close()


def _is_ours(path: Path) -> bool:
    for name, keys in OURS.items():
        try:
            found = json.loads((path / name).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and all(key in found for key in keys):
            return True
    return False


def _is_file_of(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def provenance(command: str | None = None, device: str | None = None) -> dict[str, Any]:
    """Where numbers come from: command, commit, versions, machine.

    Args:
        device: What the networks run on; None: a GPU if there is one.
    """
    return {
        "command": command or shlex.join(["python", *sys.argv]),
        **commit(),
        "started": now(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("polydistill", "torch", "numpy", "gymnasium", "ale-py")
            if _installed(name)
        }
        | {"python": platform.python_version()},
        "machine": machine(device),
    }


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> dict[str, Any]:
    """``commit`` and ``dirty`` of the source tree this code runs from; ``unknown`` for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    try:
        head = _git(root, "rev-parse", "HEAD")
        return {"commit": head, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": False}


def machine(device: str | None = None) -> dict[str, Any]:
    """Processor, cores this process may use, RAM, and the GPU if there is one and ``device`` is not another."""
    cpu = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    gpu = torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "ram_gb": round(machine_memory()[0] / 1e9, 1),
        "device": torch.cuda.get_device_name(device) if gpu else device or "cpu",
    }


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def resumed(info: dict[str, Any], path: Path) -> dict[str, Any]:
    """What ``run.json`` says of a continued run: how it began, and every sitting.

    ``command`` makes the run as it is now from its beginning: the first command, or where a later sitting asked for
    something else (more updates, say), the last such one without ``--resume``. ``commit`` and ``dirty`` are the last
    sitting's; those of each are in ``sittings``.
    """
    try:
        first = json.loads(path.read_text())
    except (OSError, ValueError):
        return info
    later, before, asks = first.get("resumed", []), first.get("command", info["command"]), _beginning(info["command"])
    sittings = first.get("sittings")
    if sittings is None:  # an older run.json, whose commit is that of the last sitting
        began = {"started": first.get("started")}
        sittings = [*map(_sitting, [began, *later[:-1], {**later[-1], "dirty": first.get("dirty")}])] if later else None
    return {
        **info,
        "command": before if asks == _beginning(before) else asks,
        "started": first.get("started", info["started"]),
        "resumed": [*later, {key: info[key] for key in ("command", "commit", "started", "machine")}],
        "sittings": [*(sittings or [_sitting(first)]), _sitting(info)],
    }


def _sitting(about: dict[str, Any]) -> dict[str, Any]:
    unknown = {"commit": "unknown", "dirty": False, "started": "unknown"}
    return {key: default if about.get(key) is None else about[key] for key, default in unknown.items()}


def _beginning(command: str) -> str:
    """A command as it would begin the run; one without these flags stays as it was typed."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    kept = [word for word in words if word not in ("--resume", "--overwrite")]
    return command if kept == words else shlex.join(kept)
