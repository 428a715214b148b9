"""Checkpoints that survive a kill at any moment, and damage afterwards."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from polydistill.errors import UserError
from polydistill.training import checkpoint


def save(folder: Path, step: int, **settings: Any) -> Path:
    tensors = {"student": {"w": torch.full((4, 3), float(step))}, "optimizer": {"0.m": torch.ones(5)}, "empty": {}}
    return checkpoint.save(folder, step, tensors, {"updates": step, "rng": [1, 2]}, **settings)


def steps(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") is None
    save(tmp_path, 7)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, found.state) == (7, {"updates": 7, "rng": [1, 2]})
    assert found.tensors.keys() == {"student", "optimizer"}
    assert torch.equal(found.tensors["student"]["w"], torch.full((4, 3), 7.0))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    assert steps(tmp_path) == ["0000000003", "0000000010"]


def test_one_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 5)
    checkpoint.save(tmp_path, 5, {"student": {"w": torch.zeros(1)}}, {})
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["student"]["w"], torch.zeros(1))
    assert steps(tmp_path) == ["0000000005"]


FILES = ["MANIFEST.json", "state.json", "student.safetensors", "optimizer.safetensors"]


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["empty", "half", "one byte short", "one byte more", "gone", "folder"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    content = path.read_bytes()
    if damage in ("gone", "folder"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
    else:
        cut = {"empty": 0, "half": len(content) // 2, "one byte short": -1, "one byte more": None}[damage]
        path.write_bytes(content[:cut] + (b"x" if cut is None else b""))
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_is_found(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    whole = path.read_bytes()
    for bit in range(3, len(whole) * 8, 29):
        flip(path, bit)
        found = checkpoint.latest(tmp_path)
        assert found is not None
        # of the manifest, a bit of white space or of the step (its folder's name says that too) may pass
        assert found.step == 1 or (file == "MANIFEST.json" and found.state["updates"] == 2), f"bit {bit}"
        path.write_bytes(whole)


def test_nothing_usable_is_said_and_not_taken_for_nothing(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step) / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"no usable checkpoint: .*0000000002: state.json is damaged; .*0000000001"):
        checkpoint.latest(tmp_path)


def test_another_runs_weights_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    shutil.copy(save(tmp_path / "other", 3) / "student.safetensors", path)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_the_next_save_clears_what_a_killed_writer_and_a_damaged_newer_one_left(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 9) / "state.json").write_text("")
    torn = tmp_path / ".tmp-10-4242"
    torn.mkdir()
    (torn / "student.safetensors").write_bytes(b"x" * 100)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1
    save(tmp_path, 4)
    assert steps(tmp_path) == ["0000000001", "0000000004"]


class KilledError(BaseException):
    pass


def operations(monkeypatch: pytest.MonkeyPatch, die_at: int, error: BaseException) -> list[str]:
    """Let the ``die_at``-th write, sync or rename fail; after a kill nothing is tidied up any more."""
    done: list[str] = []

    def counted(name: str, real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            done.append(name)
            if len(done) - 1 == die_at:
                if isinstance(error, KilledError):
                    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *a, **k: None)
                raise error
            return real(*arguments, **named)

        return call

    monkeypatch.setattr(checkpoint, "save_file", counted("weights", checkpoint.save_file))
    monkeypatch.setattr(Path, "write_text", counted("text", Path.write_text))
    monkeypatch.setattr(checkpoint.os, "fsync", counted("sync", os.fsync))
    monkeypatch.setattr(checkpoint.os, "rename", counted("rename", os.rename))
    return done


def test_a_kill_at_any_operation_leaves_a_checkpoint(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        done = operations(patch, -1, KilledError())
        save(tmp_path / "count", 1)
    assert done.count("rename") == 1
    assert done.index("rename") > len(done) - 3  # everything is written and synced before
    for at in range(len(done)):
        folder = tmp_path / str(at)
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            operations(patch, at, KilledError())
            with pytest.raises(KilledError):
                save(folder, 2)
        found = checkpoint.latest(folder)
        assert found is not None
        assert found.step == (1 if at <= done.index("rename") else 2)
        assert found.state["updates"] == found.step
        save(folder, 3)
        assert not list(folder.glob(".tmp-*"))


def test_a_full_disk_at_any_operation_leaves_the_earlier_ones(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for at in range(20):
        folder = tmp_path / str(at)
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            done = operations(patch, at, full)
            try:
                save(folder, 2)
            except UserError:
                pass
            else:
                assert len(done) <= at
                return
        assert "0000000001" in steps(folder)
        assert not list(folder.glob(".tmp-*"))
        found = checkpoint.latest(folder)
        assert found is not None
        assert found.step >= 1
    pytest.fail("it never came to the end")
