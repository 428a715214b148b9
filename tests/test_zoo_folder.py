"""What of a teacher's folder is committed: its card and its weights, and nothing that a training leaves beside them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LEFT = (
    ".lock", "run.json", "recipe.yaml", "curve.csv", "shadow.csv", "shadow.svg",
    "checkpoint/0000640000/net.safetensors", "student/student.safetensors", "student/card.json",
)  # fmt: skip


def ignored(*paths: str) -> list[str]:
    """Those of the paths that git leaves out, tracked or not."""
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    try:
        done = subprocess.run(command, cwd=ROOT, input="\n".join(paths), capture_output=True, text=True, check=False)
    except OSError:
        pytest.skip("no git here")
    if done.returncode not in (0, 1):
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


@pytest.mark.parametrize("game", ["pong", "qbert"])
def test_what_a_training_leaves_is_not_committed(game: str) -> None:
    paths = [f"zoo/{game}/{name}" for name in LEFT]
    assert ignored(*paths) == paths
    assert ignored(f"zoo/{game}/card.json", f"zoo/{game}/teacher.safetensors") == []
