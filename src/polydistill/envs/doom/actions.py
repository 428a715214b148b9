"""Actions: which buttons they hold down. One set per suite."""

from __future__ import annotations

from dataclasses import dataclass

#: ViZDoom's names of the buttons, in the order of :func:`Press.values`.
BUTTONS = (
    "MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT_RIGHT_DELTA", "SPEED", "ATTACK", "JUMP",
)  # fmt: skip

TURN = 5.625  # degrees per tic: 22.5 in a control step, sixteen steps make a circle
AIM = 1.40625  # degrees per tic: 5.625 in a control step, about what a bot fills at 6 m (320 map units)


@dataclass(frozen=True)
class Press:
    """Buttons held for one control step; the player always runs.

    Attributes:
        forward: 1 forward, -1 backward.
        right: 1 to the right, -1 to the left, without turning.
        turn: Degrees per tic, positive to the right.
    """

    forward: int = 0
    right: int = 0
    turn: float = 0.0
    attack: bool = False
    jump: bool = False

    def values(self) -> list[float]:
        """One number per entry of :data:`BUTTONS`."""
        forward, right = self.forward, self.right
        held = (forward > 0, forward < 0, right < 0, right > 0, self.turn, True, self.attack, self.jump)
        return [float(value) for value in held]


_WALK = {
    "FORWARD": Press(forward=1),
    "BACKWARD": Press(forward=-1),
    "STRAFE_LEFT": Press(right=-1),
    "STRAFE_RIGHT": Press(right=1),
    "TURN_LEFT": Press(turn=-TURN),
    "TURN_RIGHT": Press(turn=TURN),
    "FORWARD_TURN_LEFT": Press(forward=1, turn=-TURN),
    "FORWARD_TURN_RIGHT": Press(forward=1, turn=TURN),
}
_TAG = {
    "AIM_LEFT": Press(turn=-AIM),
    "AIM_RIGHT": Press(turn=AIM),
    "SHOOT": Press(attack=True),
    "FORWARD_JUMP": Press(forward=1, jump=True),
}

#: Suite -> action meaning -> what it presses, in the order of the task's own actions.
ACTIONS: dict[str, dict[str, Press]] = {"mazes": _WALK, "nav": _WALK, "tag": _WALK | _TAG}
