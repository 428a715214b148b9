"""Names, adapters and plug-ins."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from polydistill.envs import suite
from polydistill.envs.base import EnvOptions
from polydistill.envs.catch import CatchVec, catch_task
from polydistill.envs.suite import expand, make_env, resolve_task
from polydistill.errors import UserError
from polydistill.tasks import Suite, Task


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pongg", "unknown task 'pongg'; did you mean 'pong'?"),
        ("Pong", "did you mean 'pong'?"),
        ("ALE/Pong-v5", "did you mean 'pong'?"),
        ("ALE/MsPacman-v5", "did you mean 'ms_pacman'?"),
        ("MsPacman", "did you mean 'ms_pacman'?"),
        ("mspacman", "did you mean 'ms_pacman'?"),
        ("SpaceInvadersNoFrameskip-v4", "did you mean 'space_invaders'?"),
        ("space-invaders", "did you mean 'space_invaders'?"),
        ("UpNDown-ramDeterministic-v4", "did you mean 'up_n_down'?"),
        ("Qbert", "did you mean 'qbert'?"),
        ("cacth", "did you mean 'catch'?"),
        ("catch-wnd", "did you mean 'catch-wind'?"),
        ("CartPole-v1", "did you mean 'gym:CartPole-v1'?"),
        ("LunarLandr-v3", "did you mean 'gym:LunarLander-v3'?"),
        ("xyzzy123", "name an Atari game such as"),
        ("", "name an Atari game such as"),
        ("atari:pongg", "unknown Atari game 'pongg'; did you mean 'pong'?"),
        ("combat", "'combat' is for two players"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_task(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_profiles() -> None:
    assert resolve_task("atari:pong", profile="nature").obs_profile == "nature"
    assert resolve_task("catch", profile="nature").obs_profile == "raw"
    with pytest.raises(UserError, match="unknown observation profile 'natur'; choose one of ale, nature"):
        resolve_task("pong", profile="natur")


def test_two_catch_tasks_share_an_axis() -> None:
    both = Suite((resolve_task("catch"), resolve_task("catch-mirror"), resolve_task("catch-wind")))
    assert both.axis == ("LEFT", "NOOP", "RIGHT")
    assert both.actions == ((0, 1, 2), (2, 1, 0), (0, 2))
    assert len({t.obs_shape for t in both.tasks}) == 1


def plug_in() -> types.SimpleNamespace:
    def resolve(name: str, profile: str) -> Task:
        return Task(name, "maze", ("LEFT", "NOOP", "RIGHT"), (1, 10, 5))

    def make(task: Task, num_envs: int, options: EnvOptions) -> CatchVec:
        return CatchVec(catch_task(), num_envs, max_steps=options.max_frames)

    return types.SimpleNamespace(resolve=resolve, make=make)


def test_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("polydistill_a_plug_in")
    module.adapter = plug_in()
    module.broken = 3
    monkeypatch.setitem(sys.modules, module.__name__, module)
    points = {
        "maze": EntryPoint("maze", f"{module.__name__}:adapter", suite.ENTRY_POINT_GROUP),
        "broken": EntryPoint("broken", f"{module.__name__}:broken", suite.ENTRY_POINT_GROUP),
        "absent": EntryPoint("absent", "polydistill_no_such_module", suite.ENTRY_POINT_GROUP),
    }
    monkeypatch.setattr(suite, "_plug_ins", lambda: points)
    task = resolve_task("maze:small")
    assert (task.name, task.kind) == ("maze:small", "maze")
    assert make_env(task, 2, max_frames=9).num_envs == 2
    with pytest.raises(UserError, match=r"'broken' .* lacks resolve"):
        resolve_task("broken")
    with pytest.raises(UserError, match=r"'absent' .* does not load"):
        resolve_task("absent")
    with pytest.raises(UserError, match="did you mean 'maze'"):
        resolve_task("mazee")


def test_a_missing_plug_in() -> None:
    with pytest.raises(UserError, match="no environment adapter 'chess': is its package installed"):
        make_env(Task("chess:mate", "chess", ("E4",), (1,)), 1)


def test_without_ale_py() -> None:
    """Everything but Atari works, and Atari says what to install."""
    code = """
import sys
sys.modules["ale_py"] = None
from polydistill.envs.suite import expand, make_env, resolve_task
from polydistill.errors import UserError
make_env(resolve_task("catch"), 2).reset(0)
for name in ("pong", "nonsense"):
    try:
        resolve_task(name)
    except UserError as error:
        assert "pip install 'polydistill[atari]'" in str(error), error
    else:
        raise AssertionError
assert not {"torch", "gymnasium"} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_names_of_suites_expand() -> None:
    nav = ["doom:nav-1", "doom:nav-2", "doom:nav-3", "doom:nav-4"]
    assert expand(["catch", "doom:nav", "pong", "no such task"]) == ["catch", *nav, "pong", "no such task"]
    assert expand(["doom:mazes"]) == [f"doom:mazes-{n}" for n in range(1, 9)]
    assert expand(["doom:tag"]) == [f"doom:tag-{n}" for n in range(1, 9)]
    assert expand([]) == []
    with pytest.raises(UserError, match="'doom:nav' is a whole suite, and one task is wanted here: there are doom:maz"):
        resolve_task("doom:nav")
    with pytest.raises(
        UserError, match=r"'doom:arena'; there are doom:mazes-1 to -8, .*doom:nav-1 to -4, doom:tag-1 to"
    ):
        resolve_task("doom:arena")
