"""What a student reads when a check fails: what, where, the pattern, the likely reason, what to do next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gemm_lessons.grading.misconceptions import Misconception
from gemm_lessons.grading.runner import Outcome

ENDLESS = "a kernel without an end"


@dataclass(frozen=True)
class Feedback:
    """One failed check, explained; empty parts are left out.

    Attributes:
        what: what is wrong, in one or two sentences.
        where: expert, tile, row and column, or the line.
        pattern: what all wrong outputs have in common.
        likely: the misconception that fits best, None if none fits well.
        look: what to look at next, where no misconception says it.
        smallest: the smallest case that fails, with its numbers if they are few.
        picture: path of the heatmap.
        printed: what the submission printed.
    """

    what: str
    where: str = ""
    pattern: str = ""
    likely: Misconception | None = None
    look: str = ""
    smallest: str = ""
    picture: str = ""
    printed: str = ""

    def sections(self) -> list[tuple[str, str]]:
        """Title and text of each part that is there, in reading order."""
        found = [("What", self.what), ("Where", self.where), ("Pattern", self.pattern)]
        if self.likely is not None:
            found += [("Likely reason", f"{self.likely.title}. {self.likely.why}")]
        found += [("Look next", self.likely.look if self.likely is not None else self.look)]
        found += [("Smallest failing case", self.smallest), ("Picture", self.picture)]
        found += [("Your code printed", self.printed.strip())]
        return [(title, text) for title, text in found if text]

    def __str__(self) -> str:
        lines = []
        for title, text in self.sections():
            first, *rest = text.splitlines()
            lines += [f"{title + ':':<15} {first}", *(f"{'':<15} {line}" for line in rest)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for reports; the misconception as its key."""
        return asdict(self) | {"likely": self.likely.key if self.likely else ""}


class CheckFailedError(Exception):
    """A check that the submission does not pass."""

    def __init__(self, feedback: Feedback) -> None:
        super().__init__(str(feedback))
        self.feedback = feedback


class NotRunError(Exception):
    """A check that cannot be made here; the message says why."""


def stopped(outcome: Outcome, path: str, subject: str, seconds: float) -> Feedback | None:
    """Why a submission gave no answer, or None if it gave one.

    Args:
        outcome: of the job.
        path: of the submission, to tell its lines from the simulator's.
        subject: what was called.
        seconds: the time limit.
    """
    error = outcome.error
    line = f"line {error['line']}: {error['text']}" if error.get("line") else ""
    printed = outcome.printed
    if outcome.refusals or outcome.status == "refused":
        sentence = outcome.refusals[0] if outcome.refusals else error.get("message", "")
        return Feedback(f"Stopped: {sentence}.", line, printed=printed)
    if outcome.status == "raised":
        if error.get("type") == "NotImplementedError":
            what = "This part is not written yet: it raises NotImplementedError."
            return Feedback(what, line, look="Replace that line; `gemm-lessons hint` helps.", printed=printed)
        if error.get("type") == "MisuseError":
            return Feedback(_sentence(error["message"]), line, printed=printed)
        what = f"{subject} raised {error.get('type')}: {error.get('message')}"
        return Feedback(what, line, look="The line above, and the values that reach it.", printed=printed)
    if outcome.status == "time":
        what = f"{subject} did not end within {seconds:g} seconds and was stopped."
        look = "A loop that never ends: what changes in each round, and does it reach its end?"
        return Feedback(what, line, look=look, printed=printed)
    if outcome.status == "exit":
        return Feedback(
            f"{subject} ended the whole process ({error.get('type')}).", line, look="Remove the exit."
        )
    if outcome.status == "memory":
        return Feedback(
            f"{subject} asked for more memory than 2 GiB.", line, look="The shapes of what you allocate."
        )
    if outcome.status == "unsendable":
        what = f"{subject} returned {error['message']}, which is not plain data."
        return Feedback(what, look="The docstring's Returns.", printed=printed)
    if outcome.status == "uncompiled":
        what = f"Numba cannot compile {subject} for a GPU: {error.get('message')}"
        return Feedback(what, line, look="The types of what this line works on.", printed=printed)
    if outcome.status == "crashed":
        what = f"The GPU stopped the kernel: {error.get('message')}"
        return Feedback(what, line, look="The findings of the checked simulator name the line.")
    if outcome.status in ("died", "garbled"):
        what = f"The process that ran {subject} died without an answer."
        return Feedback(what, look="Nothing in the exercise ends a process: remove what does.")
    endless = next((f for f in outcome.findings if f["kind"] == "endless"), None)
    if endless is not None:
        what = f"Kernel {endless['kernel']!r} never ends: it was stopped while a loop was still running."
        where = f"line {endless['line']}: {endless['text']}" if endless["file"] == path else ""
        look = (
            "The loop's condition: which variable changes in each round, and can it stop changing too early?"
        )
        return Feedback(what, where, ENDLESS, look=look, printed=printed)
    return None


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
