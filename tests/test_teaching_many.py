"""Many teachers from one command."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from polydistill.errors import UserError
from polydistill.teaching_many import games_of, shares, teach_many
from polydistill.training.games import Game, table
from tests.command_line import typed

QUICK = ["--steps", "512", "--set", "evaluation.every=512", "evaluation.episodes=2", "evaluation.final_episodes=2"]
QUICK += ["settings.num_envs=8", "network.bf16=false", "network.hidden=16"]


def arguments(game: Game) -> list[str]:
    return ["teach", "--task", game.task, "--out", str(game.folder), *QUICK]


def write_card(folder: Path, control_steps: Any, mean: float = 7.5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    card = {"control_steps": control_steps, "scores": {"noop": {"mean": mean}}}
    (folder / "card.json").write_text(json.dumps(card))


def test_cores_are_divided() -> None:
    assert shares([0, 1, 2, 3, 4], 2) == [[0, 2, 4], [1, 3]]
    assert shares([4, 7], 2) == [[4], [7]]
    assert shares([4, 7], 3) == [[4], [7], [4]]
    with pytest.raises(UserError, match="--workers must be at least 1; found -1"):
        shares([0], -1)


def test_names() -> None:
    assert len(games_of(["all"])) == 10
    assert games_of(["catch", "pong"]) == ["catch", "pong"]
    with pytest.raises(UserError, match="pong is named twice"):
        games_of(["all", "pong"])
    with pytest.raises(UserError, match="did you mean 'pong'"):
        games_of(["pnog"])


def test_what_the_files_say(tmp_path: Path) -> None:
    game = Game("pong", tmp_path, 10_000)
    game.read()  # nothing is there
    assert (game.steps, game.rate, game.left) == (0, 0.0, float("inf"))
    rows = ["control_steps,hours,evaluation", "1000,0.00,", "2000,0.50,3.5", "2900,0.55,1.5", "3800,0.60,"]
    (tmp_path / "curve.csv").write_text("\n".join(rows))
    game.read()
    # The last five minutes: 900 control steps in 0.05 hours.
    assert (game.steps, game.last, game.best) == (3800, 1.5, 3.5)
    assert game.rate == pytest.approx(5.0)
    assert game.left == pytest.approx(6200 / 5)
    (tmp_path / "curve.csv").write_text("\n".join([*rows, "47"]))  # half a line
    game.read()
    assert game.steps == 3800
    write_card(tmp_path, 10_000)
    game.state = "finished"
    game.read()
    assert (game.steps, game.score) == (10_000, 7.5)
    out = io.StringIO()
    Console(file=out, width=100).print(table([game]))
    assert "pong" in out.getvalue()
    assert "7.5" in out.getvalue()
    assert "share:" not in out.getvalue()


def test_the_table_says_what_share_of_the_game_alone_it_is(tmp_path: Path) -> None:
    game = Game("space_invaders", tmp_path, 10_000_000, state="training")
    rows = ["control_steps,hours,evaluation", "1000,0.00,", "2000,0.50,3.5", "2900,0.55,1.5", "3800,0.60,"]
    (tmp_path / "curve.csv").write_text("\n".join(rows))
    (tmp_path / "run.json").write_text('{"emulator_steps_per_s": 12')  # half-written
    game.read()
    assert game.alone == 0
    (tmp_path / "run.json").write_text('{"emulator_steps_per_s": 20}')
    game.read()
    (tmp_path / "run.json").write_text("{}")  # it is written anew at the beginning of a sitting
    game.read()
    assert game.rate == pytest.approx(5.0)
    out = io.StringIO()
    Console(file=out, width=80).print(table([game]))
    head, line, told = out.getvalue().splitlines()
    assert re.match("game +state +control steps steps/s share last best score +left", head)
    assert line.split()[:6] == ["space_invaders", "training", "0.00/10.00", "M", "5", "25%"]
    assert "game alone reaches" in told


@pytest.mark.parametrize(("flags", "asked"), [([], False), (["--steps", 9], True), (["--set", "total_steps=9"], True)])
def test_only_who_says_how_long_has_finished_teachers_trained_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[Any], asked: bool
) -> None:
    seen: list[Game] = []
    monkeypatch.setattr("polydistill.teaching_many.teach_many", lambda games, *_, **__: seen.extend(games) or 0)
    assert typed(monkeypatch, "teach", "--tasks", "catch", "--out", tmp_path, *flags) == 0
    assert [(game.task, game.asked) for game in seen] == [("catch", asked)]


def test_how_a_game_goes_on(tmp_path: Path) -> None:
    game = Game("pong", tmp_path / "pong", 10_000)
    assert game.begin(overwrite=False) == []
    game.folder.mkdir()
    (game.folder / ".lock").touch()
    assert game.begin(overwrite=False) == []
    (game.folder / "checkpoint").mkdir()
    assert game.begin(overwrite=False) == ["--resume"]
    assert game.begin(overwrite=True) == ["--overwrite"]
    write_card(game.folder, 9_999)
    assert game.begin(overwrite=False) == ["--resume"]  # further, from its checkpoint
    write_card(game.folder, 10_000)
    assert game.begin(overwrite=False) is None
    write_card(game.folder, "damaged")
    assert game.begin(overwrite=False) == ["--resume"]
    (game.folder / "card.json").write_text("{")
    assert game.begin(overwrite=False) == ["--resume"]
    write_card(tmp_path / "shipped", 5)  # without a checkpoint there is nothing to go on from
    assert Game("pong", tmp_path / "shipped", 10_000).begin(overwrite=False) is None
    # Unless the user says how long: then from its weights, as far as it is from there.
    further = Game("pong", tmp_path / "shipped", 10_000, asked=True)
    assert further.begin(overwrite=False) == ["--resume"]
    assert further.steps == 5
    assert Game("pong", tmp_path / "shipped", 5, asked=True).begin(overwrite=False) is None
    other = Game("pong", tmp_path / "shipped", 10_000, recipe="nature")
    with pytest.raises(UserError, match=r"trained with the recipe .*, not nature: --overwrite replaces it"):
        other.begin(overwrite=False)
    assert other.begin(overwrite=True) == ["--overwrite"]


def test_one_fails_and_the_others_are_trained(tmp_path: Path) -> None:
    games = [Game(name, tmp_path / name, 512) for name in ("catch", "catch-wind", "catch-wide")]
    games[1].folder.mkdir()
    (games[1].folder / "holiday.jpg").touch()
    write_card(games[2].folder, 512)
    out = io.StringIO()
    with pytest.raises(UserError, match=r"1 of 3 trainings failed: catch-wind \(.*not empty and not a run"):
        teach_many(games, arguments, workers=2, console=Console(file=out, width=100))
    assert [game.state for game in games] == ["finished", "failed", "finished"]
    assert (games[0].folder / "teacher.safetensors").is_file()
    assert games[0].score is not None
    assert not (games[2].folder / "teacher.safetensors").exists()  # it was finished: nothing was started
    assert "catch after 512 control steps" in out.getvalue()
    assert (games[1].folder / "holiday.jpg").exists()


def test_a_stop_keeps_checkpoints_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polydistill.cli", "teach", "--tasks", "catch", "catch-wind", "--workers", "2"]
    command += ["--out", str(tmp_path), "--steps", "5000000", "--set", "settings.num_envs=8", "network.bf16=false"]
    command += ["network.hidden=16", "evaluation.episodes=2", "evaluation.every=10000000"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    for sitting in range(2):
        more = [] if sitting else ["--overwrite"]
        with subprocess.Popen(
            [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        ) as process:
            assert process.stdout is not None
            if sitting:
                assert "resumed after" in process.stdout.readline()
                assert "resumed after" in process.stdout.readline()
            else:
                until = time.monotonic() + 300  # of a busy machine
                while sum((tmp_path / g / "run.json").is_file() for g in ("catch", "catch-wind")) < 2:
                    if time.monotonic() > until:
                        process.kill()  # or leaving `with` waits for millions of steps
                        pytest.fail("not begun in time")
                    time.sleep(0.1)
                time.sleep(2)  # handlers are in place once training has begun
            process.send_signal(signal.SIGINT)
            told = process.stdout.read()
        assert process.returncode == 130, told
        assert f"the same command{'' if sitting else ' without --overwrite'} continues" in told
        for game in ("catch", "catch-wind"):
            assert any((tmp_path / game / "checkpoint").iterdir())
