"""Training teachers: one game's schedule, evaluation, checkpoints, and the card that says what it took."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from polydistill.algorithms.kickstart import Assistance
from polydistill.envs.atari import rom_hash
from polydistill.errors import UserError
from polydistill.evaluation.protocol import EVALUATION_SEED_BASE, evaluate_task
from polydistill.evaluation.protocol import Protocol as Evaluation
from polydistill.evaluation.scores import Label, mean_scores, summarise
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import Network, build_network, load_teacher, save_teacher, write_card
from polydistill.training import checkpoint
from polydistill.training.beginning import CHECKPOINT, Beginning, Taken
from polydistill.training.folder import RunFolder, now
from polydistill.training.online import Online
from polydistill.training.stopping import Stop, stop_on_signal
from polydistill.training.student_folder import Scored

CURVE = "curve.csv"
COLUMNS = ("control_steps", "updates", "hours", "epsilon", "loss", "q_mean", "training_return", "evaluation")
MODEL_SELECTION_SEED = EVALUATION_SEED_BASE + 700_000  # the final score is measured on other seeds


class Trainer(Protocol):
    """One game's learner, whatever the algorithm. Steps are control steps."""

    net: nn.Module
    steps: int
    updates: int
    assist: Assistance | None

    def run(self) -> Iterator[dict[str, float]]:
        """Endless: every few hundred steps metrics (``loss``, ``q_mean``, ``epsilon``, now and then ``return``)."""

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Everything beside the network's weights that a checkpoint needs."""

    def load_state(self, tensors: dict[str, dict[str, Tensor]], counters: dict[str, Any]) -> None:
        """Undo :meth:`state`."""


@dataclass
class Teaching:
    """One game's training.

    Attributes:
        folder: Where the checkpoint, the curve and in the end the teacher are written.
        total_steps: Control steps of the whole training.
        evaluate_every: Control steps between evaluations; the network with the best one is kept.
        evaluation: Episodes of each of them, and of the final score on the card.
        card: What the card says beside the scores: recipe, seed and the like.
        phase: Command and settings of this sitting. A training continued under other settings lists one such entry per
            sitting on its card, with the control steps at which it began.
        online: Students that follow; None: there are none.
        evaluate_first: Evaluate before the first step too.
        taken: What the weights took that this training began with. Its own steps, updates and hours are counted without
            that, its card and its curve with it.
        on_finish: Told how the teacher did that was written.
        emulator_rate: Control steps per second that the game alone reaches here, for comparison; 0: unknown.
        device: Where the network learns, and plays its evaluations.
        threads: Emulator threads of the evaluations; 0: one per core.
    """

    folder: RunFolder
    task: Task
    network: Network
    trainer: Trainer
    total_steps: int
    card: dict[str, Any]
    phase: dict[str, Any] = field(default_factory=dict)
    evaluate_every: int = 250_000
    evaluation_episodes: int = 10
    final_episodes: int = 100
    checkpoint_seconds: float = 180.0
    log_seconds: float = 30.0
    say: Callable[[str], None] = print
    device: str = "cpu"
    threads: int = 0
    online: Online | None = None
    evaluate_first: bool = False
    on_finish: Callable[[Scored], None] | None = None
    emulator_rate: float = 0.0
    taken: Taken = field(default_factory=Taken)
    hours: float = 0.0
    best_score: float = -float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    phases: list[dict[str, Any]] = field(default_factory=list, init=False)
    _evaluated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.phases = [{"from_control_steps": 0, **self.phase}]

    def begin_from(self, beginning: Beginning) -> None:
        """Count in what a teacher took whose weights the network has; from here on ``total_steps`` may count all."""
        taken = beginning.taken
        self.phases = [
            *beginning.phases,
            {**self.phases[0], "from_control_steps": taken.control_steps, "started_from": str(beginning.folder)},
        ]
        if beginning.here:
            self.trainer.steps, taken = taken.control_steps, replace(taken, control_steps=0)
        self.taken = taken

    def drive(self) -> bool:
        """Train to the last step or to a signal. True if it came to the end and the teacher is written."""
        trainer = self.trainer
        if trainer.steps < self.total_steps and not self._train():
            return False
        self.finish()
        return True

    def _train(self) -> bool:
        trainer, before = self.trainer, self.hours
        began = saved = logged = time.monotonic()
        first = last = trainer.steps
        updates = trainer.updates
        recent: list[float] = []
        with stop_on_signal() as stop:
            if self.evaluate_first and not self.best:
                nothing = dict.fromkeys(("epsilon", "loss", "q_mean"), float("nan"))
                self._write_curve(nothing, float("nan"), self._evaluate(stop))
            for metrics in trainer.run():
                learnt = trainer.updates > updates  # else it fills its memory, and there is no loss
                if learnt and not np.isfinite(metrics["loss"]):
                    raise UserError(
                        f"{self.task.name}: the loss is {metrics['loss']} after {trainer.steps:,} control steps: the "
                        "last checkpoint is sound, try a smaller settings.learning_rate"
                    )
                updates = trainer.updates
                clock = time.monotonic()
                self.hours = before + (clock - began) / 3600
                if self.online is not None:
                    self.online.catch_up(trainer.steps - last)
                last = trainer.steps
                if "return" in metrics:
                    recent = [*recent, metrics["return"]][-50:]
                done = trainer.steps >= self.total_steps
                training = float(np.mean(recent)) if recent else float("nan")
                due = trainer.steps // self.evaluate_every > self._evaluated // self.evaluate_every
                if done or (due and not stop.asked):  # a resume makes up for it
                    self._write_curve(metrics, training, self._evaluate(stop))
                    self.hours = before + (time.monotonic() - began) / 3600
                elif clock - logged > self.log_seconds:
                    logged = clock
                    self._write_curve(metrics, training, float("nan"))
                    rate = (trainer.steps - first) / (clock - began)
                    speed = f"{rate:,.0f}/s"
                    if self.emulator_rate:
                        speed += f", {rate / self.emulator_rate:.0%} of the game alone"
                    told = f"loss {metrics['loss']:.4f}" if learnt else "fills its memory"
                    self.say(
                        f"{self.task.name} {trainer.steps:,}/{self.total_steps:,} control steps | {speed} | "
                        f"{told} | return {training:.1f} | best {self.best_score:.1f}"
                    )
                if stop.asked or done:
                    self.save()
                elif clock - saved > self.checkpoint_seconds:
                    self._save_or_say()
                    saved = time.monotonic()
                if stop.asked and not done:
                    self.say(f"{self.task.name} stopped after {trainer.steps:,} control steps; continue with --resume")
                    return False
                if done:
                    return True
        return False

    def _evaluate(self, stop: Stop) -> float:
        """Play; keep the network if it is the best; show it to the students that follow.

        Between the first step and the last a signal cuts the learner's play short: NaN, and a resume makes up for it.
        """
        protocol = Evaluation(episodes=self.evaluation_episodes, seed=MODEL_SELECTION_SEED)
        score = float("nan")
        with stop.cutting() if 0 < self.trainer.steps < self.total_steps else nullcontext():
            greedy = self._greedy(self.trainer.net)
            score = mean_scores(evaluate_task(self.task, greedy, protocol, threads=self.threads))[self.task.name]
        if np.isnan(score):
            return score
        self._evaluated = self.trainer.steps
        if score > self.best_score:
            self.best_score = score
            self.best = {k: v.detach().cpu().clone() for k, v in self.trainer.net.state_dict().items()}
        told = f"{self.task.name} after {self.trainer.steps:,} control steps: {score:.1f} (best {self.best_score:.1f})"
        if self.online is not None:
            told += ", " + self.online.evaluate(score, self._kept(), self.trainer.steps, protocol)
        self.say(told)
        return score

    def _kept(self) -> nn.Module:
        """The best network so far as it will be written, in float32 above the convolutions; else the present one."""
        net = build_network(self.task, self.network)
        net.load_state_dict(self.best or self.trainer.net.state_dict())
        return net

    def _greedy(self, net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
        @torch.inference_mode()
        def choose(obs: np.ndarray) -> np.ndarray:
            return np.asarray(net(torch.from_numpy(obs).to(self.device)).argmax(-1).cpu().numpy())

        return choose

    def _write_curve(self, metrics: Mapping[str, float], training: float, evaluation: float) -> None:
        path = self.folder.path / CURVE
        size = self.folder.size(CURVE)
        values = (
            self.taken.control_steps + self.trainer.steps, self.taken.updates + self.trainer.updates,
            round(self.taken.hours + self.hours, 4), metrics["epsilon"], metrics["loss"], metrics["q_mean"], training,
            evaluation,
        )  # fmt: skip
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        if not size:
            rows.writerow(COLUMNS)
        rows.writerow("" if isinstance(v, float) and np.isnan(v) else v for v in values)
        try:
            with path.open("a", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:
            with suppress(OSError):
                self.folder.truncate(CURVE, size)  # no half row
            self.say(f"cannot write {path} ({error.strerror}): training goes on, its curve lacks a row")

    def _cut_curve(self, steps: int) -> None:
        """Leave of the curve the rows before so many control steps, where another evaluation begins it again."""
        path = self.folder.path / CURVE
        try:
            head, *rows = path.read_text().splitlines(keepends=True)
            kept = [row for row in rows if row.endswith("\n") and int(row.split(",", 1)[0]) < steps]
        except (FileNotFoundError, ValueError):
            head, kept = "", []
        self.folder.truncate(CURVE, len("".join([head, *kept]).encode()) if kept else 0)

    def _save_or_say(self) -> None:
        try:
            self.save()
        except UserError as error:
            self.say(f"{error}; trying again in {self.checkpoint_seconds:.0f} seconds")

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            UserError: it cannot be written; the earlier ones are untouched.
        """
        tensors, counters = self.trainer.state()
        state = {
            **counters,
            "hours": self.hours,
            "taken": asdict(self.taken),
            "phases": self.phases,
            "best_score": self.best_score if self.best else None,
            "curve_bytes": self.folder.size(CURVE),
            "evaluated": self._evaluated,
        }
        parts = {"net": self.trainer.net.state_dict(), "best": self.best, **tensors}
        if self.online is not None:
            followers, state["shadow"] = self.online.state()
            parts |= followers
        checkpoint.save(self.folder.path / CHECKPOINT, self.trainer.steps, parts, state)

    def resume(self) -> bool:
        """Go back to the newest checkpoint. False: there is none."""
        found = checkpoint.latest(self.folder.path / CHECKPOINT)
        if found is None:
            self._cut_curve(self.trainer.steps)  # training starts again, or from the teacher that is here
            if self.online is not None:
                self.online.load_state({}, None, self._kept())
            return False
        tensors = dict(found.tensors)
        self.trainer.net.load_state_dict(tensors.pop("net"))
        self.best = tensors.pop("best", {})
        self.trainer.load_state(tensors, found.state)
        self.hours = found.state["hours"]
        self._evaluated = found.state.get("evaluated", self.trainer.steps)  # older checkpoints lack it
        self.taken = Taken(**found.state.get("taken", {}))  # older checkpoints lack it
        began = self.taken.control_steps + self.trainer.steps
        self.phases = [*found.state["phases"], {"from_control_steps": began, **self.phase}]
        if found.state["best_score"] is not None:
            self.best_score = found.state["best_score"]
        self.folder.truncate(CURVE, found.state["curve_bytes"])
        if self.online is not None:
            self.online.load_state(found.tensors, found.state.get("shadow"), self._kept())
        return True

    def finish(self) -> Teacher:
        """Write the best network as a teacher, play it from the written file, and note the score on its card."""
        net = self._kept()
        card = {
            "task": self.task.to_dict(),
            "rom_sha256": rom_hash(self.task.name) if self.task.kind == "atari" else None,
            "network": self.network.model_dump(mode="json"),
            "kind": "q",
            **self.card,
            "control_steps": self.taken.control_steps + self.trainer.steps,
            "updates": self.taken.updates + self.trainer.updates,
            "hours": round(self.taken.hours + self.hours, 2),
            "phases": self.phases,
            "finished": now(),
        }
        save_teacher(self.folder.path, net, card)
        scored = score_card(self.folder.path, self.final_episodes, self.say, self.device, self.threads)
        if self.online is not None:
            self.online.finish(scored, self.trainer.steps, 3600 * self.hours)
        if self.on_finish is not None:
            self.on_finish(scored)
        return load_teacher(self.folder.path)


def evaluations(curve: Path) -> list[tuple[int, int, float]]:
    """Control steps, updates and score of each evaluation in a training's ``curve.csv``."""
    with curve.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["evaluation"]]
    return [(int(row["control_steps"]), int(row["updates"]), float(row["evaluation"])) for row in rows]


def score_card(
    folder: Path, episodes: int, say: Callable[[str], None] = print, device: str = "cpu", threads: int = 0
) -> Scored:
    """Play the teacher as written to ``folder``; note mean, interval and the random policy's score on its card.

    Args:
        device: Where it plays.
        threads: Emulator threads; 0: one per core.
    """
    teacher = load_teacher(folder).to(device)
    task = teacher.task
    protocol = Evaluation(episodes=episodes)
    rows = evaluate_task(task, teacher.greedy, protocol, threads=threads, label=Label("teacher"))
    summary = summarise(rows, [], {}, protocol=protocol.describe()).tasks[task.name]
    random = mean_scores(evaluate_task(task, None, Evaluation(episodes=30), threads=threads))[task.name]
    noop = {"mean": summary.score, "low": summary.low, "high": summary.high, "episodes": episodes}
    scores = {"noop": {**noop, "protocol": protocol.describe()}, "random": random}
    card = {k: v for k, v in teacher.card.items() if k != "format"}
    write_card(folder, {**card, "scores": scores})
    say(f"{task.name}: {summary.score:.1f} [{summary.low:.1f}, {summary.high:.1f}], random {random:.1f} -> {folder}")
    return Scored(folder, protocol, rows, random)
