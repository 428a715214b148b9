"""``polydistill sources``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from polydistill.errors import UserError
from polydistill.verbs.base import Text, flag


@dataclass(frozen=True)
class Sources:
    """Which sources may help a target: how alike their features are on the target's observations."""

    target: Annotated[Path, arg(metavar="FOLDER")]
    """A teacher of the target task. It plays; what it sees is shown to all."""
    sources: Annotated[tuple[Path, ...], arg(metavar="FOLDER ...")]
    """Runs or teachers of other tasks."""
    observations: Annotated[int, flag("N")] = 2000
    """How many of the target's observations are compared; 2,000 when left out."""
    seed: Annotated[int, arg(metavar="N")] = 1
    """Root of the play and of the untrained network."""
    device: Text = None
    """auto, cpu, cuda ..."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.devices import device_of
        from polydistill.evaluation.similarity import compare_sources, sources_table

        if self.seed < 0:
            raise UserError(f"--seed must not be negative; found {self.seed}")
        device = str(device_of(self.device or "auto"))
        rows = compare_sources(self.target, self.sources, self.observations, self.seed, device)
        print(sources_table(rows, str(self.target)))
        return 0
