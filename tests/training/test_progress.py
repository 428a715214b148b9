import io

from polydistill.training.progress import Live


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(stream: io.StringIO) -> str:
    with Live("control steps", stream) as live:
        live.show(1_000, 4_000, "700/s | 5s left")
        live.say("a checkpoint [1]")
        live.show(4_000, 4_000, "720/s | 0s left")
    return stream.getvalue()


def test_plain_lines_in_a_file() -> None:
    assert watched(io.StringIO()).splitlines() == [
        "1,000/4,000 control steps | 700/s | 5s left",
        "a checkpoint [1]",
        "4,000/4,000 control steps | 720/s | 0s left",
    ]


def test_a_bar_in_a_terminal() -> None:
    shown = watched(Terminal())
    assert "4,000/4,000 control steps" in shown
    assert "720/s" in shown
    assert "a checkpoint [1]" in shown
    assert "━" in shown
