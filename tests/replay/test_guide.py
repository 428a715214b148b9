"""The program in the guide to prioritised replay runs as it stands, only shorter, and its student learns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "prioritised-replay.md"


def test_the_guides_own_training_loop(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert "range(3_000)" in program
    names: dict[str, Any] = {}
    exec(compile(program.replace("range(3_000)", "range(600)"), str(GUIDE), "exec"), names)
    assert names["agree"] > 0.9
    assert 4_000 < len(names["sampler"]) < 600 * 8, "the fullest partitions have begun to evict"
    names["sampler"].check()
    assert "loss_share" in capsys.readouterr().out
