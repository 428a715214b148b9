"""``make bench``: a table on the screen and ``benchmarks/latest.json``."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import collect_bench, doom_bench, joint_bench, learner_bench, samplers_bench, teach_bench
from benchmarks.timing import Row
from polydistill.training.folder import provenance

LATEST = Path(__file__).with_name("latest.json")


def main() -> None:
    """Measure, print, write."""
    rows: list[Row] = []
    for measure in (
        learner_bench.bytes_per_experience,
        learner_bench.learner,
        samplers_bench.samplers_at_paper_size,
        joint_bench.rows,
        collect_bench.collect,
        doom_bench.doom,
        teach_bench.rows,
    ):
        for found in measure():
            rows.append(found)
            print(
                f"{found['name']:52} {found['ours']:>10,.1f} {found['reference']:>10,.1f} {found['unit']:16} "
                f"{found['ratio']:6.2f}  ({found['want']})",
                flush=True,
            )
    info = provenance("make bench")
    LATEST.write_text(json.dumps({**info, "rows": rows}, indent=2) + "\n")
    print(f"written to {LATEST.relative_to(Path.cwd()) if LATEST.is_relative_to(Path.cwd()) else LATEST}")


if __name__ == "__main__":
    main()
