"""A run's folder: one owner, nobody else's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from polydistill.errors import UserError
from polydistill.training.folder import RunFolder, commit, machine, provenance, resumed


def run_in(path: Path) -> Path:
    folder = RunFolder(path)
    folder.write_json("run.json", {"command": "polydistill distill", "versions": {}})
    (path / "checkpoints").mkdir()
    folder.close()
    return path


def listing(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"" for p in path.rglob("*")}


def test_a_second_owner_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    program = f"""
import fcntl, os
lock = open({str(path / ".lock")!r}, "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(f"process {{os.getpid()}}")
lock.flush()
print("locked", flush=True)
input()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"in use by process {other.pid}: choose another folder or wait") as error:
        RunFolder(path)
    assert "\n" not in str(error.value)
    other.kill()
    other.wait()
    RunFolder(path).close()  # the lock died with its owner
    assert list(path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1")
    RunFolder(tmp_path).close()


def test_a_lock_taken_while_its_owner_leaves_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the old file, its owner removes it, lock it: a lock that nobody else can see is none."""
    import fcntl

    first, real = RunFolder(tmp_path), fcntl.flock

    def late(file: object, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        first.close()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second = RunFolder(tmp_path)
    with pytest.raises(UserError, match="in use"):
        RunFolder(tmp_path)
    second.close()


@pytest.mark.parametrize("name", ["recipe.yaml", "notes.txt", ".lock2", "run.json", "card.json"])
@pytest.mark.parametrize("flags", [{"overwrite": True}, {"resume": True}, {}])
def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path: Path, name: str, flags: dict[str, bool]) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    before = listing(tmp_path)
    with pytest.raises(UserError, match="not empty and not a run"):
        RunFolder(tmp_path, **flags)
    assert listing(tmp_path) == before


def test_a_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = run_in(tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (path / "link").symlink_to(outside)
    before = listing(path)
    with pytest.raises(UserError, match="add --resume to continue it or --overwrite to replace it"):
        RunFolder(path)
    with pytest.raises(UserError, match="give one of them"):
        RunFolder(path, resume=True, overwrite=True)
    assert listing(path) == before
    RunFolder(path, resume=True).close()
    assert listing(path) == before
    RunFolder(path, overwrite=True).close()
    assert listing(path) == {}
    assert (outside / "precious").exists()


def test_a_teacher_is_replaced_only_by_what_makes_one(tmp_path: Path) -> None:
    path = run_in(tmp_path / "run")
    (path / "card.json").write_text('{"format": 1, "task": {}}')
    before = listing(path)
    with pytest.raises(UserError, match="holds a teacher, which --overwrite does not replace"):
        RunFolder(path, overwrite=True)
    assert listing(path) == before
    RunFolder(path, overwrite=True, teacher=True).close()
    assert listing(path) == {}


def test_a_run_in_use_is_not_replaced(tmp_path: Path) -> None:
    path = run_in(tmp_path / "run")
    held = RunFolder(path, resume=True)
    with pytest.raises(UserError, match="in use"):
        RunFolder(path, overwrite=True)
    assert (path / "run.json").exists()
    held.close()


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        RunFolder(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_file_or_an_unwritable_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "file")
    with pytest.raises(UserError, match="cannot write to --out"):
        RunFolder(tmp_path / "file" / "below")
    with pytest.raises(UserError, match=r"cannot write to --out /proc/run: .*choose another folder"):
        RunFolder(Path("/proc/run"))


def test_writes_are_whole_and_failures_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("a.json", {"x": 1})
    folder.append("log.jsonl", {"n": 1})
    folder.append("log.jsonl", {"n": 2})
    size = folder.size("log.jsonl")
    folder.append("log.jsonl", {"n": 3})
    folder.truncate("log.jsonl", size)
    folder.truncate("none", 3)
    assert [json.loads(line)["n"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"cannot write .*a.json: No space left on device"):
        folder.write_json("a.json", {"x": 2})
    monkeypatch.undo()
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []
    folder.close()


def test_provenance_says_where_numbers_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["my script.py", "--x"])
    assert provenance()["command"] == "python 'my script.py' --x"
    info = provenance("polydistill distill demo")
    assert info["command"] == "polydistill distill demo"
    assert {"python", "torch", "polydistill"} <= info["versions"].keys()
    assert info["machine"]["cores"] >= 1
    assert len(commit()["commit"]) in (40, len("unknown"))


def test_the_machine_is_what_was_used_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: f"Some GPU of {device}")
    assert machine("cpu")["device"] == "cpu"
    assert machine("cuda:1")["device"] == "Some GPU of cuda:1"
    assert machine()["device"] == "Some GPU of None"
    assert provenance("polydistill distill demo", "cpu")["machine"]["device"] == "cpu"


def sitting(command: str, commit: str, dirty: bool = False) -> dict[str, Any]:
    return {"command": command, "commit": commit, "dirty": dirty, "started": f"at {commit}", "machine": {}, "tasks": []}


def after(path: Path, *sittings: dict[str, Any], begin: dict[str, Any] | None = None) -> dict[str, Any]:
    """``run.json`` after sittings one after the other."""
    first, *rest = [begin or sittings[0], *sittings[begin is None :]]
    path.write_text(json.dumps(first))
    for info in rest:
        path.write_text(json.dumps(resumed(info, path)))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_run_that_went_on_is_made_by_its_first_command(tmp_path: Path) -> None:
    first = sitting("polydistill distill 'my recipe' --overwrite --out x", "a", dirty=True)
    info = after(
        tmp_path / "run.json",
        first,
        sitting("polydistill distill 'my recipe' --out x --resume", "a"),
        sitting("polydistill distill 'my recipe' --resume --out x", "b"),
    )
    assert info["command"] == first["command"]
    assert info["started"] == "at a"
    assert (info["commit"], info["dirty"]) == ("b", False)
    assert [s["commit"] for s in info["resumed"]] == ["a", "b"]
    assert info["sittings"] == [
        {"commit": "a", "dirty": True, "started": "at a"},
        {"commit": "a", "dirty": False, "started": "at a"},
        {"commit": "b", "dirty": False, "started": "at b"},
    ]


def test_a_run_that_was_made_longer_is_made_by_the_longer_command(tmp_path: Path) -> None:
    info = after(
        tmp_path / "run.json",
        sitting("polydistill distill rusu --updates 10", "a"),
        sitting("polydistill distill rusu --updates 90 --out 'a b' --resume", "b"),
        sitting("polydistill distill rusu --updates 90 --out 'a b' --resume", "c"),
    )
    assert info["command"] == "polydistill distill rusu --updates 90 --out 'a b'"
    assert info["started"] == "at a"
    again = after(tmp_path / "run.json", sitting("say 'no", "b"), sitting("say 'no", "c"))  # no shell's words
    assert again["command"] == "say 'no"


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    old = sitting("x", "a", dirty=True)
    info = after(tmp_path / "run.json", sitting("x --resume", "b"), begin=old)
    assert [(s["commit"], s["dirty"]) for s in info["sittings"]] == [("a", True), ("b", False)]
    twice = sitting("x", "b", dirty=True) | {"resumed": [{"command": "x --resume", "commit": "b", "started": "at b"}]}
    info = after(tmp_path / "run.json", sitting("x --resume", "c"), begin=twice)
    assert [(s["commit"], s["dirty"]) for s in info["sittings"]] == [("unknown", False), ("b", True), ("c", False)]
    assert resumed(old, tmp_path / "none") == old
