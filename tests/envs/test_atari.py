"""Atari, held against an emulator driven by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from polydistill.envs.atari import (
    AtariVec,
    Emulators,
    atari_task,
    games,
    luminance,
    minimal_actions,
    nearest_game,
    rom_hash,
    rom_path,
)
from polydistill.envs.base import EnvOptions, Step, copy_seeds
from polydistill.errors import UserError
from polydistill.tasks import ATARI_AXIS

ale_py = pytest.importorskip("ale_py")


def overlap(new: int, old: int) -> np.ndarray:
    """[new, old]: the share of each old pixel in a new one when a line of old pixels is divided into new ones."""
    edges = np.arange(new + 1) * old / new
    left, right = np.maximum(edges[:-1, None], np.arange(old)), np.minimum(edges[1:, None], np.arange(old) + 1)
    return np.maximum(right - left, 0) * new / old


ROWS, COLUMNS = overlap(84, 210), overlap(84, 160)
Y = np.array([0.299, 0.587, 0.114])


def shrink(grey: np.ndarray) -> np.ndarray:
    """Area averaging of [210, 160] to [84, 84], in floating point."""
    return ROWS @ grey.astype(np.float64) @ COLUMNS.T


@dataclass
class Shown:
    obs: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    final: np.ndarray | None
    life_lost: bool


class ByHand:
    """One copy, slowly and plainly: the papers' preprocessing on a bare emulator, no no-ops of its own accord."""

    def __init__(self, game: str, profile: str, seed: int, sticky: float, max_frames: int):
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", sticky)
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(str(rom_path(game)))
        self.actions = self.ale.getMinimalActionSet()
        self.nature, self.max_frames = profile == "nature", max_frames

    def screen(self) -> np.ndarray:
        return self.ale.getScreenRGB() if self.nature else self.ale.getScreenGrayscale()

    def frame(self, screens: list[np.ndarray]) -> np.ndarray:
        pooled = np.maximum.reduce(screens)  # on RGB, and only then grey; or on grey
        return shrink(pooled @ Y if self.nature else pooled)

    def begin(self, noops: int) -> np.ndarray:
        self.ale.reset_game()
        for _ in range(noops):
            self.ale.act(ale_py.Action.NOOP)
        self.stack = [np.zeros((84, 84))] * 3 + [self.frame([self.screen()])]
        self.age = 0
        return np.stack(self.stack)

    def step(self, action: int, noops: int) -> Shown:
        lives, reward, screens = self.ale.lives(), 0.0, []
        for _ in range(4):
            reward += self.ale.act(self.actions[action])
            screens.append(self.screen())
            if self.ale.game_over():
                break
        self.age += 4
        self.stack = [*self.stack[1:], self.frame(screens[-2:])]
        over = self.ale.game_over()
        cut = not over and self.age >= self.max_frames
        lost, final = self.ale.lives() < lives, np.stack(self.stack)
        ended = over or cut
        return Shown(self.begin(noops) if ended else final, reward, over, cut, final if ended else None, lost)


@pytest.mark.parametrize(
    ("game", "profile", "sticky", "noop_max", "max_frames", "steps"),
    [
        ("breakout", "ale", 0.0, 0, 10**6, 400),  # dies and starts again by itself
        ("breakout", "nature", 0.25, 30, 10**6, 250),
        ("space_invaders", "nature", 0.0, 30, 120, 100),  # flickers: the maximum matters
        ("pong", "ale", 0.25, 0, 90, 60),  # a limit inside a control step: the step is finished
    ],
)
def test_against_an_emulator_driven_by_hand(
    game: str, profile: str, sticky: float, noop_max: int, max_frames: int, steps: int
) -> None:
    """Observations within one grey level, everything else exact: across truncations, deaths and starts."""
    seed, n = 3, 2
    env = AtariVec(atari_task(game, profile), n, sticky=sticky, noop_max=noop_max, max_frames=max_frames, threads=1)
    twins = [ByHand(game, profile, int(s), sticky, max_frames) for s in copy_seeds(seed, n)]
    rng = np.random.default_rng(1)
    obs = env.reset(seed)
    for twin, mine, noops in zip(twins, obs, env.noops, strict=True):
        assert np.abs(mine - twin.begin(int(noops))).max() <= 1
    terminated = truncated = lost = 0
    for _ in range(steps):
        actions = rng.integers(0, env.task.n_actions, n)
        step = env.step(actions)
        for i, twin in enumerate(twins):
            shown = twin.step(int(actions[i]), int(env.noops[i]))
            assert step.reward[i] == shown.reward
            assert step.terminated[i] == shown.terminated
            assert step.truncated[i] == shown.truncated
            assert step.life_lost[i] == shown.life_lost
            assert np.abs(step.obs[i] - shown.obs).max() <= 1
            if shown.final is not None:
                assert step.final_obs is not None
                # At game over ale-py's newest frame is an older one; up to it, and at a limit, all four are right.
                known = slice(3) if shown.terminated else slice(4)
                assert np.abs(step.final_obs[i, known] - shown.final[known]).max() <= 1
        terminated, truncated = terminated + step.terminated.sum(), truncated + step.truncated.sum()
        lost += step.life_lost.sum()
    env.close()
    if game == "breakout":
        assert terminated >= 1
        assert lost >= 5 * terminated
    else:
        assert truncated == n * (steps // -(-max_frames // 4))
    if game == "pong":
        assert lost == 0  # a task without lives


def test_luminance() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    rgb[0, :8] = np.array(np.meshgrid([0, 255], [0, 255], [0, 255])).reshape(3, 8).T
    grey = luminance(rgb)
    assert (grey.shape, grey.dtype) == ((40, 50), np.uint8)
    assert np.abs(grey - rgb @ Y).max() <= 0.51
    wide = rgb.astype(np.int64)
    exact = (9798 * wide[..., 0] + 19235 * wide[..., 1] + 3735 * wide[..., 2] + 2**14) >> 15
    assert np.array_equal(grey, exact)
    cv2 = pytest.importorskip("cv2")
    assert np.array_equal(grey, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def test_maximum_before_grey() -> None:
    """A red dot, then a blue one (Mnih 2015): 255 (.299 + .114) = 105; grey first would keep the red one's 76."""
    red, blue = np.array([[255, 0, 0]], dtype=np.uint8), np.array([[0, 0, 255]], dtype=np.uint8)
    assert luminance(np.maximum(red, blue)).tolist() == [105]
    assert np.maximum(luminance(red), luminance(blue)).tolist() == [76]


def test_the_profiles_differ_on_pong() -> None:
    """They show one game, and most of its frames differ where the ball was in one screen and the wall in the other."""
    envs = [AtariVec(atari_task("pong", p), 1, threads=1) for p in ("ale", "nature")]
    ale, nature = (env.reset(0) for env in envs)
    differ, rng = 0, np.random.default_rng(0)
    for _ in range(60):
        action = rng.integers(0, 6, 1)
        ale, nature = (env.step(action).obs for env in envs)
        apart = np.abs(ale[0, 3].astype(int) - nature[0, 3])
        differ += int(apart.max() > 1)  # more than rounding
        assert (apart > 1).mean() < 0.01
    assert 30 <= differ < 60
    for env in envs:
        env.close()


def test_noop_starts_are_one_to_noop_max() -> None:
    env = AtariVec(atari_task("pong"), 4, noop_max=3, max_frames=4, threads=1)
    env.reset(0)
    seen = [env.noops.copy()]
    assert env.noops.dtype == np.int32
    for _ in range(31):
        assert env.step(np.zeros(4, dtype=np.int64)).truncated.all()
        seen.append(env.noops.copy())
    counts = np.bincount(np.concatenate(seen), minlength=4)
    assert counts[0] == 0
    assert (counts[1:] > 20).all()  # 128 starts: 43 of each expected
    assert counts.sum() == 128
    # Copies draw apart from one another, and the same again.
    assert len({tuple(column) for column in np.stack(seen).T}) == 4
    env.reset(0)
    assert np.array_equal(env.noops, seen[0])
    env.close()


def test_a_second_emulator_films_the_first() -> None:
    env = AtariVec(atari_task("breakout"), 2, max_frames=100, threads=1)
    camera = Emulators("breakout", 2, rgb=True, size=(210, 160), options=EnvOptions(max_frames=100, threads=1))
    rng = np.random.default_rng(0)
    obs, screens = env.reset(4), camera.reset(4)
    ended = 0
    for _ in range(60):
        assert screens.shape == (2, 210, 160, 3)
        assert np.abs(shrink(screens[0] @ Y) - obs[0, 3]).max() < 40  # one game; grey and maximum swap places
        assert np.abs(shrink(screens[0] @ Y) - obs[0, 3]).mean() < 1
        actions = rng.integers(0, 4, 2)
        step, filmed = env.step(actions), camera.step(actions)
        for name in ("reward", "terminated", "truncated", "life_lost"):
            assert np.array_equal(getattr(step, name), getattr(filmed, name))
        obs, screens = step.obs, filmed.obs
        ended += int(step.ended.sum())
    assert ended >= 4
    assert np.array_equal(env.noops, camera.noops)
    env.close()
    camera.close()


def test_threads_do_not_change_the_game() -> None:
    def play(threads: int) -> list[Step]:
        env = AtariVec(atari_task("pong"), 2, sticky=0.25, threads=threads)
        env.reset(1)
        steps = [env.step(np.full(2, t % 6)) for t in range(30)]
        env.close()
        return steps

    for a, b in zip(play(1), play(2), strict=True):
        assert np.array_equal(a.obs, b.obs)
        assert np.array_equal(a.reward, b.reward)


def test_minimal_actions_and_tasks() -> None:
    assert minimal_actions("pong") == (0, 1, 3, 4, 11, 12)
    assert minimal_actions("breakout") == (0, 1, 3, 4)
    assert minimal_actions("freeway") == (0, 2, 5)
    task = atari_task("freeway")
    assert task.action_meanings == ("NOOP", "UP", "DOWN")
    assert (task.kind, task.obs_profile, task.obs_shape, task.stack) == ("atari", "ale", (4, 84, 84), 4)
    codes = [ale_py.Action[name].value for name in ATARI_AXIS]
    assert codes == list(range(18))
    assert rom_hash("pong") == "41623e3c26148f96cbe77d56512845d224a63c8fe5bf90e38527155e39ec96d3"


@pytest.mark.parametrize("game", ["combat", "joust", "maze_craze", "warlords"])
def test_games_for_two_do_not_end_the_process(game: str) -> None:
    with pytest.raises(UserError, match="for two players"):
        atari_task(game)
    assert game in games()


def test_every_gymnasium_name_finds_its_game() -> None:
    known = games()
    for game in known:
        camel = "".join(part.capitalize() for part in game.split("_"))
        for name in (camel, f"ALE/{camel}-v5", f"{camel}NoFrameskip-v4", f"{camel}-ram-v0", game.upper()):
            assert nearest_game(name, known) == game, name
    assert nearest_game("CartPole-v1", known) is None
