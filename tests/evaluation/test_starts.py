"""Bundles of starts: what is kept, what is refused, and that every policy meets the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydistill.envs.atari import ram_after
from polydistill.envs.base import EVALUATION_SEED_BASE, Step, copy_seeds
from polydistill.envs.catch import optimal_q
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError
from polydistill.evaluation import making_starts, protocol, start_files
from polydistill.evaluation.copies import Copies, Line, open_copies
from polydistill.evaluation.making_starts import make_bundle
from polydistill.evaluation.play import Greedy, play_starts
from polydistill.evaluation.protocol import Protocol, Rules, evaluate_task, require_starts
from polydistill.evaluation.start_files import SHIPPED, find, read, sealed, write
from polydistill.evaluation.starts import RAM, Bundle, Start, digest
from polydistill.rng import stream
from polydistill.tasks import Task
from tests.envs.test_atari import ByHand

CATCH = resolve_task("catch")


def best(obs: np.ndarray) -> np.ndarray:
    return optimal_q(obs).argmax(-1)


def bundle_of(task: Task = CATCH, greedy: Greedy | None = None, **settings: Any) -> Bundle:
    return make_bundle(task, greedy, policy="random", command="test", **{"count": 12, "threads": 1, **settings})


@cache
def a_bundle() -> Bundle:
    return bundle_of()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(a_bundle(), tmp_path / "catch.json")
    return tmp_path / "catch.json"


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a bundle with a right checksum."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(sealed(content))


def by_hand(task: Task, start: Start, greedy: Greedy | None, epsilon: float, rng: Any) -> tuple[int, float, list[int]]:
    """Steps, points and actions after the hand-over: one fresh environment, slowly."""
    env = make_env(task, 1, noop_max=0, threads=1)
    obs = env.reset(start.seed)
    for action in start.actions:
        obs = env.step(np.array([action])).obs
    steps, score, actions, ended = 0, 0.0, [], False
    while not ended:
        chance, choice = rng.random(2)
        action = int(choice * task.n_actions)
        if greedy is not None and chance >= epsilon:
            action = int(greedy(obs)[0])
        step = env.step(np.array([action]))
        obs, ended = step.obs, bool(step.ended[0])
        steps, score = steps + 1, score + float(step.reward[0])
        actions.append(action)
    env.close()
    return steps, score, actions


# Making --------------------------------------------------------------------------------------------------------------


def test_starts_are_positions_of_the_policy_s_own_episodes() -> None:
    """Each against one fresh environment: the log is what the policy did there, the score that of the whole episode."""
    bundle = bundle_of(CATCH, best, epsilon=0.2, seed=3)
    scores = []
    for k, start in enumerate(bundle.starts):
        whole = replace(start, actions=np.zeros(0, np.uint8))
        steps, score, actions = by_hand(CATCH, whole, best, 0.2, stream(3, "starts", "catch", k))
        assert (start.episode_steps, actions[: len(start.actions)]) == (steps, start.actions.tolist())
        scores.append(score)
    assert bundle.origin.score == pytest.approx(np.mean(scores))
    assert bundle.origin.epsilon == 0.2


def test_within_the_first_fifth_on_evaluation_seeds() -> None:
    bundle = bundle_of(count=100)
    assert [s.episode_steps for s in bundle.starts] == [40] * 100
    assert np.bincount([len(s.actions) for s in bundle.starts], minlength=9)[1:].min() > 3  # 12.5 expected of 1 .. 8
    assert max(len(s.actions) for s in bundle.starts) == 8
    seeds = [s.seed for s in bundle.starts]
    assert min(seeds) >= EVALUATION_SEED_BASE
    assert len(set(seeds)) == 100
    assert bundle.origin.epsilon == 1.0  # nobody but chance played


def same(a: Bundle, b: Bundle) -> bool:
    def plain(s: Start) -> tuple[Any, ...]:
        return s.seed, s.actions.tolist(), s.episode_steps, dict(s.hashes)

    return [plain(s) for s in a.starts] == [plain(s) for s in b.starts]


def test_copies_change_nothing_and_seeds_everything() -> None:
    assert same(a_bundle(), bundle_of(num_envs=1))
    assert same(a_bundle(), bundle_of(num_envs=5))
    assert not same(a_bundle(), bundle_of(seed=1))


def test_short_episodes_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making_starts, "WITHIN", 0.02)  # less than one step of 40
    assert {len(s.actions) for s in bundle_of().starts} == {0}


class Noisy:
    """A task whose second opening shows something else for the same seed and actions."""

    opened = 0

    def __init__(self, inner: Copies):
        self.task, self.num_envs, self._inner = inner.task, inner.num_envs, inner
        Noisy.opened += 1
        self._noise = np.uint8(Noisy.opened)

    def restart(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        return self._inner.restart(rows, seeds) + self._noise

    def step(self, actions: np.ndarray) -> Step:
        step = self._inner.step(actions)
        return replace(step, obs=step.obs + self._noise)

    def close(self) -> None:
        self._inner.close()


def test_a_task_that_does_not_repeat_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making_starts, "open_copies", lambda *a, **k: Noisy(open_copies(*a, **k)))
    with pytest.raises(UserError, match=r"'catch' does not do the same again .* \(start 0\)"):
        bundle_of()


# The file ------------------------------------------------------------------------------------------------------------


def test_a_bundle_comes_back_as_it_was(tmp_path: Path) -> None:
    bundle = a_bundle()
    write(bundle, tmp_path / "x.json")
    again = read(tmp_path / "x.json")
    assert same(bundle, again)
    assert (again.task, again.action_meanings, again.rom_sha256) == ("catch", ("LEFT", "NOOP", "RIGHT"), None)
    assert again.origin == bundle.origin
    assert again.path == tmp_path / "x.json"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(ValueError, match="at least one"):
        write(replace(bundle, starts=()), tmp_path / "y.json")


def cut(content: dict[str, Any]) -> None:
    for key in ("seeds", "steps", "episode_steps"):
        content[key] = []
    content["hashes"], content["actions"] = {"raw": []}, "eNoDAAAAAAE="


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (cut, "an empty bundle, there is no start in it; make them with polydistill starts --task catch"),
        (put(format=2), "bundle format 2, this version reads 1"),
        (put(task="catch-wind"), "starts of catch-wind, not of catch"),
        (
            put(action_meanings=["UP", "NOOP", "RIGHT"]),
            "with the actions UP, NOOP, RIGHT, but catch here has LEFT, NOOP",
        ),
        (put(action_meanings=["LEFT"]), "its actions are not the task's"),
        (put(rom_sha256="ab" * 32), "made with another ROM of catch (bundle abababababab, here None)"),
        (put(seeds=[7] * 12), "seed 7 is one for training"),
        (put(seeds=[EVALUATION_SEED_BASE] * 11), "not a bundle that polydistill wrote"),
        (put(steps=[9] * 12), "step 9 is not within the first 20% of 40"),
        (put(steps=[8] * 12), "its actions are not the task's, or too few or too many"),
        (put(actions="AAAA"), "not a bundle that polydistill wrote"),
        (put(actions="%"), "not a bundle that polydistill wrote"),
        (put(hashes={"raw": ["00"]}), "not a bundle that polydistill wrote"),
        (put(extra=1), "unknown key 'extra'"),
    ],
)
def test_bundles_of_something_else(path: Path, change: Callable[[dict[str, Any]], None], match: str) -> None:
    changed(path, change)
    with pytest.raises(UserError) as error:
        find(CATCH, path)
    assert match in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b"{}", b"[" * 100_000])
def test_files_that_are_no_bundle(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or no bundle of starts"):
        read(path)


def test_any_flipped_letter_is_damage(path: Path) -> None:
    text = path.read_text()
    for at in range(30, len(text) - 90, 97):
        letter = "0" if text[at] != "0" else "1"
        path.write_text(text[:at] + letter + text[at + 1 :])
        with pytest.raises(UserError, match="damaged"):
            read(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="damaged"):
        read(path)


def test_which_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(find(CATCH, path.parent, 12).starts) == 12  # a folder with one file per task
    with pytest.raises(UserError, match="13 starts were asked for, it holds 12"):
        find(CATCH, path, 13)
    with pytest.raises(UserError, match=r"no starts of catch-wind: bundles that are in .*: catch; make them with"):
        find(resolve_task("catch-wind"), path.parent)
    with pytest.raises(UserError, match="no bundle of starts at"):
        find(CATCH, path.parent / "none.json")
    with pytest.raises(UserError, match="bundles that come with polydistill: breakout, freeway, pong; make them"):
        find(CATCH)
    monkeypatch.setattr(start_files, "SHIPPED", path.parent)
    assert len(find(CATCH).starts) == 12
    assert start_files.file_name("gym:CartPole-v1") == "gym_CartPole-v1.json"


# Playing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["catch", "gym:CartPole-v1"])
def test_rows_against_one_environment_at_a_time(name: str, tmp_path: Path) -> None:
    """Points and steps from the hand-over on, in the order of the starts, whichever copies play."""
    task = resolve_task(name)
    write(bundle_of(task), tmp_path / "x.json")
    settings = {"name": "starts", "starts": str(tmp_path / "x.json")}

    def rows(**more: Any) -> list[tuple[int, int, float]]:
        found = evaluate_task(task, pick, Protocol.parse({**settings, **more}, "test"))
        assert {r.protocol for r in found} == {"starts"}
        return [(r.episode, r.steps, r.score) for r in found]

    def pick(obs: np.ndarray) -> np.ndarray:
        return best(obs) if name == "catch" else (obs[:, 2] > 0).astype(np.int64)

    expected = []
    for k, start in enumerate(read(tmp_path / "x.json").starts):
        steps, score, _ = by_hand(task, start, pick, 0.05, stream(EVALUATION_SEED_BASE, "start", k))
        expected.append((k, steps, score))
    assert rows() == expected
    assert rows(num_envs=1) == rows(num_envs=12) == expected
    assert rows(episodes=5) == expected[:5]
    if name == "catch":
        starts = read(tmp_path / "x.json").starts
        assert [steps for _, steps, _ in expected] == [40 - len(s.actions) for s in starts]
    assert rows(seed=EVALUATION_SEED_BASE + 1) != expected  # other random actions from the same positions


class Watched:
    """Copies that note each action."""

    def __init__(self, inner: Copies):
        self.task, self.num_envs, self._inner = inner.task, inner.num_envs, inner
        self.actions: list[np.ndarray] = []
        self.restart = inner.restart
        self.close = inner.close

    def step(self, actions: np.ndarray) -> Step:
        self.actions.append(actions.copy())
        return self._inner.step(actions)


def watched(action: int | None, bundle: Bundle, epsilon: float, **more: Any) -> tuple[np.ndarray, int]:
    """All actions that one copy took in one start after another, and how often the policy was asked."""
    asked = 0

    def constant(obs: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(obs)
        return np.full(len(obs), action)

    copies = Watched(open_copies(CATCH, 1))
    greedy = None if action is None else constant
    list(play_starts(copies, greedy, bundle, episodes=12, epsilon=epsilon, seed=0, **more))
    return np.concatenate(copies.actions), asked


def test_two_policies_meet_the_same_random_actions() -> None:
    bundle = a_bundle()
    left, asked = watched(0, bundle, 0.5)
    right, _ = watched(2, bundle, 0.5)
    chance, _ = watched(None, bundle, 0.5)
    logs = [s.actions for s in bundle.starts]
    assert asked == sum(40 - len(log) for log in logs)  # never while a log is played again
    own = np.concatenate([np.arange(40) >= len(log) for log in logs])
    replayed = np.concatenate(logs)
    for actions in (left, right, chance):
        assert np.array_equal(actions[~own], replayed)
    random = own & (left == right)  # the policies never agree
    assert 0.4 < random.sum() / own.sum() < 0.6
    assert np.array_equal(left[random], chance[random])
    assert (left[own & ~random] == 0).all()
    assert (right[own & ~random] == 2).all()
    assert np.bincount(chance[own], minlength=3).min() > 0.25 * own.sum()


def test_the_cap_counts_from_the_hand_over() -> None:
    copies = open_copies(CATCH, 3)
    played = list(play_starts(copies, best, a_bundle(), episodes=12, epsilon=0.0, seed=0, max_steps=5))
    assert {e.steps for e in played} == {5}
    assert sorted(e.number for e in played) == list(range(12))


def test_a_start_that_is_not_reached_again(path: Path) -> None:
    def other(content: dict[str, Any]) -> None:
        content["hashes"]["raw"][7] = "0" * 32

    changed(path, other)
    settings = Protocol(name="starts", starts=str(path))
    with pytest.raises(
        UserError, match=r"catch.json: start 7 is not reached again: after its \d control steps the task"
    ):
        evaluate_task(CATCH, best, settings)
    assert len(evaluate_task(CATCH, best, settings.model_copy(update={"episodes": 7}))) == 7

    class Short(Watched):
        def step(self, actions: np.ndarray) -> Step:
            return replace(super().step(actions), terminated=np.ones(self.num_envs, np.bool_))

    bundle = replace(read(path), starts=tuple(s for s in a_bundle().starts if len(s.actions) > 1))
    with pytest.raises(
        UserError, match=r"start 0 is not reached again: the episode ends after 1 of its \d control steps"
    ):
        list(play_starts(Short(open_copies(CATCH, 1)), best, bundle, episodes=1, epsilon=0.0, seed=0))


def test_more_copies_than_episodes_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="3 copies for 2 episodes"):
        Line(open_copies(CATCH, 3), [1, 2])


def test_settings() -> None:
    assert (Protocol(name="starts").episodes, Protocol(name="starts").steps) == (None, None)
    described = Protocol(name="starts", episodes=5).describe()
    assert described == {
        "name": "starts", "starts": None, "episodes": 5, "steps": None, "num_envs": 10, "seed": EVALUATION_SEED_BASE,
        "sticky": 0.0, "epsilon": 0.05, "max_frames": 108_000,
    }  # fmt: skip
    with pytest.raises(UserError, match="give episodes, not steps"):
        Protocol.parse({"name": "starts", "steps": 5}, "protocol")
    with pytest.raises(UserError, match="a bundle of starts goes with protocol starts"):
        Protocol.parse({"starts": "x.json"}, "protocol")
    require_starts([CATCH], Protocol())  # no bundle, and none is wanted
    with pytest.raises(UserError, match="no starts of catch"):
        require_starts([CATCH], Protocol(name="starts"))


# Atari ---------------------------------------------------------------------------------------------------------------

SHIPPED_GAMES = sorted(p.stem for p in SHIPPED.glob("*.json"))


@pytest.fixture
def ten_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten control steps after the hand-over instead of 27,000."""
    pytest.importorskip("ale_py")
    monkeypatch.setattr(protocol, "RULES", {"starts": Rules(noop_max=0, max_frames=37)})


def test_an_atari_bundle_is_made_for_every_profile(ten_steps: None, tmp_path: Path) -> None:
    """Played under one profile, reached under the other: the hash of its pixels is there too, the RAM is not asked."""
    bundle = bundle_of(resolve_task("breakout"), count=2)
    starts = tuple(replace(s, hashes={k: v for k, v in s.hashes.items() if k != RAM}) for s in bundle.starts)
    assert [set(s.hashes) for s in bundle.starts] == [{"ale", "nature", RAM}] * 2
    write(replace(bundle, starts=starts), tmp_path / "breakout.json")
    nature, settings = resolve_task("breakout", profile="nature"), Protocol(name="starts", starts=str(tmp_path))
    assert [r.steps for r in evaluate_task(nature, None, settings, threads=1)] == [10, 10]


@pytest.mark.parametrize("profile", ["ale", "nature"])
def test_shipped_starts_are_reached_under_both_profiles(ten_steps: None, profile: str) -> None:
    rows = evaluate_task(resolve_task("pong", profile=profile), None, Protocol(name="starts", episodes=3), threads=1)
    assert [r.steps for r in rows] == [10, 10, 10]


def test_the_ram_decides_where_pixels_differ(ten_steps: None, tmp_path: Path) -> None:
    task, settings = resolve_task("pong"), Protocol(name="starts", starts=str(tmp_path), episodes=2)
    file = tmp_path / "pong.json"
    file.write_bytes((SHIPPED / "pong.json").read_bytes())
    changed(file, lambda c: c["hashes"]["ale"].__setitem__(1, "0" * 32))
    assert len(evaluate_task(task, None, settings, threads=1)) == 2
    changed(file, lambda c: c["hashes"][RAM].__setitem__(1, "0" * 32))
    with pytest.raises(UserError, match="start 1 is not reached again"):
        evaluate_task(task, None, settings, threads=1)
    changed(file, put(rom_sha256="0" * 64))
    with pytest.raises(UserError, match=r"another ROM of pong \(bundle 000000000000, here 41623e3c2614\)"):
        evaluate_task(task, None, settings, threads=1)


def test_shipped_bundles() -> None:
    pytest.importorskip("ale_py")
    assert SHIPPED_GAMES == ["breakout", "freeway", "pong"]
    for game in SHIPPED_GAMES:
        bundle = find(resolve_task(game), count=100)
        assert len(bundle.starts) == 100
        assert bundle.path.stat().st_size < 64_000
        assert set(bundle.starts[0].hashes) == {"ale", "nature", RAM}
        assert "zoo" not in bundle.origin.policy  # what comes with polydistill is scored from them
        assert len({s.hashes["ale"] for s in bundle.starts}) > 90
        start = bundle.starts[-1]
        assert digest(ram_after(game, start.seed, start.actions.tolist())) == start.hashes[RAM]


def test_the_ram_is_that_of_the_game_that_is_seen() -> None:
    """Beam Rider, which loads in two ways: an emulator driven by hand shows what the copies show, and has that RAM."""
    pytest.importorskip("ale_py")
    task, seed = resolve_task("beam_rider"), EVALUATION_SEED_BASE
    copies, twin = open_copies(task, 1, threads=1), ByHand("beam_rider", "ale", int(copy_seeds(seed, 1)[0]), 0.0, 10**6)
    copies.restart(np.array([True]), [seed])
    twin.begin(0)
    actions = np.random.default_rng(0).integers(0, task.n_actions, 60)
    for action in actions:
        seen = copies.step(np.array([action])).obs[0]
        assert np.abs(twin.step(int(action), 0).obs - seen).max() <= 1
    assert ram_after("beam_rider", seed, actions.tolist()) == twin.ale.getRAM().tobytes()
    copies.close()


@pytest.mark.slow
@pytest.mark.parametrize("game", SHIPPED_GAMES)
def test_every_shipped_start_is_reached(ten_steps: None, game: str) -> None:
    assert len(evaluate_task(resolve_task(game), None, Protocol(name="starts"), threads=1)) == 100
