"""The command line: picks the verb, and turns what a user can mend into one line."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

from polydistill.errors import UserError
from polydistill.verbs.compress import Compress
from polydistill.verbs.distill import Distill
from polydistill.verbs.distral import Distral
from polydistill.verbs.evaluate import Evaluate
from polydistill.verbs.experiment import Experiment
from polydistill.verbs.mimic_convergence import MimicConvergence
from polydistill.verbs.multitask import Multitask
from polydistill.verbs.record import Record
from polydistill.verbs.report import Report
from polydistill.verbs.sources import Sources
from polydistill.verbs.starts import Starts
from polydistill.verbs.teach import Teach
from polydistill.verbs.transfer import Transfer

Command = (
    Annotated[Distill, subcommand("distill")]
    | Annotated[Teach, subcommand("teach")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Record, subcommand("record")]
    | Annotated[Starts, subcommand("starts")]
    | Annotated[Multitask, subcommand("multitask")]
    | Annotated[Experiment, subcommand("experiment")]
    | Annotated[Compress, subcommand("compress")]
    | Annotated[Distral, subcommand("distral")]
    | Annotated[Transfer, subcommand("transfer")]
    | Annotated[Sources, subcommand("sources")]
    | Annotated[MimicConvergence, subcommand("mimic-convergence")]
)


#: What went wrong outside the program.
OUTSIDE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip


def main() -> None:
    """Entry point: one clear line and exit code 2 for everything a user can mend."""
    try:
        code = _parse(sys.argv[1:]).run()
        sys.stdout.flush()
    except UserError as error:
        print(f"polydistill: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        code = 1
    except OSError as error:
        if error.errno not in OUTSIDE:
            raise
        print(f"polydistill: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _parse(arguments: Sequence[str]) -> Any:
    """The verb that was typed, filled in.

    Raises:
        UserError: what tyro says in a box, on one line.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                Command,
                prog="polydistill",
                description="Many trained policies in, one small policy out.",
                args=arguments,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
    except SystemExit as stop:
        if not stop.code:
            raise  # --help
    lines = [line.strip("│|+ ") for line in box.getvalue().splitlines()[1:]]  # without the frame and the title
    said = itertools.takewhile(
        lambda line: line.strip("─-"), itertools.dropwhile(lambda line: not line.strip("─-"), lines)
    )
    raise UserError(" ".join(said).rstrip(".") + "; see polydistill --help")


if __name__ == "__main__":
    main()
