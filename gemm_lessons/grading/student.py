"""A submission under examination: runs it on cases, once each, and judges what comes back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gemm_lessons.compare import NUM_GUARD_ROWS
from gemm_lessons.device import probe_gpu
from gemm_lessons.grading import heatmap, misconceptions
from gemm_lessons.grading.cases import NO_TOKENS, Case
from gemm_lessons.grading.exercise import ALL_ARRAYS, Exercise, GroupedExercise, HostExercise, Question
from gemm_lessons.grading.feedback import ENDLESS, CheckFailedError, Feedback, NotRunError, stopped
from gemm_lessons.grading.judge import Judgement, guarded_output
from gemm_lessons.grading.misconceptions import Misconception
from gemm_lessons.grading.rules import Breach, breaches
from gemm_lessons.grading.runner import Outcome, Runner
from gemm_lessons.grading.shrink import shrink
from gemm_lessons.grading.typing_check import TypingCheck
from gemm_lessons.problem import DTYPES

Array = np.ndarray[Any, Any]

MOST_TIMEOUTS = 2  # after so many, further cases are not tried: the student waits for each
HARMFUL = (
    "bounds",
    "barrier",
    "collective",
    "deadlock",
    "misuse",
    "arithmetic",
)  # findings that spoil a result
NOTHING = "Nothing was written"
GPU_PATIENCE = 10  # how much longer a job may take on a GPU, where kernels are compiled first
SHOWN_NUMBERS = 12  # inputs of a smallest case are shown if they are so few


@dataclass(frozen=True)
class Run:
    """A submission on one case."""

    case: Case
    inputs: dict[str, Any]
    outcome: Outcome
    judgement: Judgement | None


class Student:
    """One submission of one exercise.

    Args:
        exercise: what is examined.
        path: the submission's file.
        runner: runs jobs in the simulator.
        seed: of inputs and cases.
        gpu: runs jobs on a GPU, if there is one.
        no_gpu: why there is none.
        pictures: folder for heatmaps; None draws none.
        compile_it: ask the compiler, which takes a few seconds of a core.
    """

    def __init__(
        self,
        exercise: Exercise,
        path: Path,
        runner: Runner,
        seed: int,
        *,
        gpu: Runner | None = None,
        no_gpu: str = "",
        pictures: Path | None = None,
        compile_it: bool = True,
    ) -> None:
        self.exercise = exercise
        self.path = path
        self.seed = seed
        self.last_judgement: Judgement | None = None  # the first wrong output, for a picture
        self._runner, self._gpu, self._no_gpu = runner, gpu, no_gpu
        self._pictures = pictures
        self._runs: dict[tuple[Case, int, str], Run] = {}
        self._timeouts = 0
        self._explained = False
        self.source = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        self._typing = None
        if compile_it and exercise.signatures and not self._unreadable and not self._breaches:
            self._typing = TypingCheck(self.source, exercise.signatures)

    # --- before anything runs ---------------------------------------------------------------

    @cached_property
    def _unreadable(self) -> Feedback | None:
        if not self.path.exists():
            return Feedback(f"{self.path} is missing.", look="The file names of the exercise must stay.")
        try:
            compile(self.source, str(self.path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", 0) or 0
            text = (getattr(error, "text", "") or "").strip()
            return Feedback(f"This is no valid Python: {error.args[0]}.", f"line {line}: {text}")
        return None

    @cached_property
    def _breaches(self) -> list[Breach]:
        exercise = self.exercise
        return breaches(self.source, numpy_allowed=exercise.numpy_allowed, instructions=exercise.instructions)

    def keeps_the_rules(self) -> None:
        """Fail if the source is no Python or holds what exercises do not need."""
        if self._unreadable:
            raise CheckFailedError(self._unreadable)
        if self._breaches:
            where = "\n".join(map(str, self._breaches[:5]))
            what = "The source has something that the exercise does not need, so it is not run."
            raise CheckFailedError(
                Feedback(what, where, look="Write it with the names that the stub imports.")
            )

    def _ready(self) -> None:
        if self._unreadable or self._breaches:
            why = "is no valid Python" if self._unreadable else "breaks a rule"
            raise CheckFailedError(Feedback(f"Not tried: the source {why}; see the first check."))

    # --- running ----------------------------------------------------------------------------

    def run(self, case: Case, *, schedule: int = 0, device: str = "sim") -> Run:
        """Run a grouped exercise on a case, or look up the earlier run.

        Args:
            case: what to compute.
            schedule: seed of the simulator's order of threads.
            device: "sim" or "gpu".
        """
        key = (case, schedule, device)
        if key not in self._runs:
            self._runs[key] = self._run(case, schedule, device)
        return self._runs[key]

    def _run(self, case: Case, schedule: int, device: str) -> Run:
        exercise = self.exercise
        if not isinstance(exercise, GroupedExercise):
            raise TypeError(f"{exercise.name} has no kernel")
        inputs = exercise.inputs(case, case.rng(self.seed))
        shape = exercise.output_case(case)
        poison = guarded_output(shape.total, shape.N, DTYPES[exercise.output_dtype])
        dtype = poison.dtype
        if exercise.output_dtype == "bfloat16":
            poison = poison.view(np.uint16)
        output = {"output": poison, "guard": NUM_GUARD_ROWS}
        outcome = self._do(exercise.job(case, inputs, output) | {"seed": schedule}, device)
        judgement = None
        if len(outcome.outputs) == 1 and outcome.status in ("ok", "finding", "raised"):
            whole = outcome.outputs[0]
            if type(whole) is np.ndarray and whole.shape == poison.shape and whole.dtype == poison.dtype:
                want = exercise.want(case, inputs)
                alternatives = exercise.alternatives(case, inputs)
                judgement = Judgement(
                    shape, whole.view(dtype), want, exercise.tile, alternatives, exercise.output
                )
        return Run(case, inputs, outcome, judgement)

    def _do(self, job: dict[str, Any], device: str = "sim") -> Outcome:
        if self._timeouts >= MOST_TIMEOUTS:
            return Outcome("time")
        runner, seconds = self._runner, self.exercise.seconds
        if device == "gpu":
            runner, seconds = self.gpu_runner(), GPU_PATIENCE * seconds
        outcome = runner.run(self.source, str(self.path), job, seconds)
        endless = any(finding["kind"] == "endless" for finding in outcome.findings)
        self._timeouts += endless or outcome.status == "time"
        return outcome

    def gpu_runner(self) -> Runner:
        """What runs jobs on a GPU.

        Raises:
            NotRunError: there is no GPU, or it lacks the exercise's instructions.
        """
        if self._gpu is None:
            raise NotRunError(f"it needs a GPU: {self._no_gpu}")
        needed, (gpu, _) = self.exercise.compute_capability, probe_gpu()
        if gpu is not None and gpu.compute_capability < needed:
            have, wants = (f"{major}.{minor}" for major, minor in (gpu.compute_capability, needed))
            raise NotRunError(f"it needs compute capability {wants}, and {gpu.name} has {have}")
        return self._gpu

    # --- checks of a grouped exercise -------------------------------------------------------

    def is_right(self, *cases: Case, device: str = "sim") -> None:
        """Fail if y is not what it should be in one of the cases."""
        self._ready()
        for case in cases:
            run = self.run(case, device=device)
            seconds = self.exercise.seconds * (GPU_PATIENCE if device == "gpu" else 1)
            feedback = stopped(run.outcome, str(self.path), _subject(self.exercise), seconds)
            # why findings too: the simulator keeps a stray access from doing harm, and a GPU does not
            stray = any(finding["kind"] in HARMFUL for finding in run.outcome.findings)
            if feedback is None and (stray or run.judgement is None or not run.judgement.ok):
                feedback = self._explain(run, device)
            if feedback is not None:
                raise CheckFailedError(self.explained(feedback))

    def _explain(self, run: Run, device: str) -> Feedback:
        finding = run.outcome.findings[0]["message"] if run.outcome.findings else ""
        finding = self._grouped().in_its_words(finding)
        on = " on the GPU" if device == "gpu" else ""
        if run.judgement is None or (finding and run.judgement.ok):
            return Feedback(
                finding or f"No output came back{on}, for {run.case}.",
                pattern=f"for {run.case}",
                printed=run.outcome.printed,
            )
        judgement, y = run.judgement, run.judgement.name
        what = f"{y} is wrong{on} for {run.case}."
        if judgement.unwritten.all() and judgement.unwritten.size:
            what = f"{NOTHING} to {y}{on}, for {run.case}."
            if device == "sim" and run.outcome.stores:
                what = (
                    f"{y} is still the NaN that it held before, for {run.case}: it is read before it is set."
                )
        where = judgement.describe() if not run.case.hidden else ""
        if finding:
            where = f"{where}\nThe checked simulator says: {finding}".strip()
        smallest, picture = "", ""
        # why once: all checks of a submission tend to fail for one reason
        if not run.case.hidden and not self._timeouts and not self._explained and device == "sim":
            self._explained, self.last_judgement = True, judgement
            smallest = self._smallest(run)
            picture = self._picture(judgement)
        look = "The first wrong output above: which thread computes it, and what does it read?"
        return Feedback(
            what, where, judgement.pattern(), None, look, smallest, picture, printed=run.outcome.printed
        )

    def _picture(self, judgement: Judgement) -> str:
        if self._pictures is None or not judgement.wrong.any():
            return ""
        return str(heatmap.save(judgement, self._pictures / f"{self.exercise.name}.png"))

    def _smallest(self, run: Run) -> str:
        def fails(case: Case) -> bool:
            judgement = self.run(case).judgement
            return judgement is not None and not judgement.ok

        case = shrink(run.case, fails)
        small = self.run(case)
        if small.judgement is None:
            return ""
        lines = [str(Case(case.counts, case.N, case.K))]
        arrays = {name: value for name, value in small.inputs.items() if isinstance(value, np.ndarray)}
        if sum(array.size for array in arrays.values()) <= SHOWN_NUMBERS:
            lines += [f"{name} = {_short(array)}" for name, array in arrays.items()]
        if small.judgement.wrong.size <= SHOWN_NUMBERS:
            never = "  (nan: never written)" if small.judgement.unwritten.any() else ""
            lines += [
                f"{small.judgement.name} = {_short(small.judgement.got)}{never}",
                f"wanted {_short(small.judgement.want.y)}",
            ]
        else:
            lines.append(small.judgement.describe())
        return "\n".join(lines)

    def launches_well(self, *cases: Case) -> None:
        """Fail if a case takes another number of launches than it should."""
        self._ready()
        exercise = self._grouped()
        for case in cases:
            run = self.run(case)
            feedback = stopped(run.outcome, str(self.path), _subject(exercise), exercise.seconds)
            made, right = len(run.outcome.launches), exercise.num_launches(case)
            if feedback is None or made != right:
                if made == right and run.outcome.status == "ok":
                    continue
                empty = any(min(launch["grid"]) < 1 for launch in run.outcome.launches)
                what = f"{made} launches were made, and {right} are right, for {case}."
                if empty:
                    what = f"A launch has an empty grid, for {case}: on a GPU that is an error."
                elif feedback is not None:
                    what = feedback.what
                look = "Each expert that has tokens needs one launch, through launch(...), and no other does."
                feedback = Feedback(what, "" if feedback is None else feedback.where, look=look)
            raise CheckFailedError(self.explained(feedback))

    def keeps_to(self, *cases: Case) -> None:
        """Fail if a case reads global memory more often than the budget says."""
        self._ready()
        exercise = self._grouped()
        for case in cases:
            run = self.run(case)
            self._must_be_right(run)
            for array, most in exercise.most_reads(case).items():
                reads = _reads(run.outcome, array)
                if reads > most:
                    source = "" if array == ALL_ARRAYS else " from global memory"
                    what = f"{array} is read {reads} times{source}; {most} are enough, for {case}."
                    what = what[:1].upper() + what[1:] if array == ALL_ARRAYS else what
                    look = f"Every place where the kernel reads {array}: can a variable keep the value?"
                    raise CheckFailedError(self.explained(Feedback(what, look=look)))

    def uses_threads(self, *cases: Case, rows_per_thread: int) -> None:
        """Fail if a launch has more threads than its outputs need, rounded up to whole blocks."""
        self._ready()
        for case in cases:
            run = self.run(case)
            self._must_be_right(run)
            for launch in run.outcome.launches:
                block = int(np.prod(launch["block"]))
                threads = int(np.prod(launch["grid"])) * block
                needed = -(-case.total // rows_per_thread) * case.N
                # why so much room: blocks of any shape may stick out at two edges
                if threads > 1.5 * needed + 2 * block:
                    what = f"{threads} threads are launched for {case.total} x {case.N} outputs, for {case}."
                    where = (
                        f"A thread computes {rows_per_thread} rows, so {needed} threads have something to do."
                    )
                    likely = misconceptions.texts()["too-many-threads"]
                    raise CheckFailedError(Feedback(what, where, likely=likely))

    def _must_be_right(self, run: Run) -> None:
        stop = stopped(run.outcome, str(self.path), _subject(self.exercise), self.exercise.seconds)
        if stop is not None:
            raise CheckFailedError(self.explained(stop))
        if run.judgement is None or not run.judgement.ok:
            y = self._grouped().output
            what = f"A budget counts only for a right result, and {y} is wrong: see the checks above."
            raise CheckFailedError(self.explained(Feedback(what)))

    def is_clean(self, *cases: Case, schedules: Sequence[int] = (0, 1)) -> None:
        """Fail if the checked simulator finds anything: bounds, races, barriers, uninitialised memory."""
        self._ready()
        for case in cases:
            for schedule in schedules:
                run = self.run(case, schedule=schedule)
                if run.outcome.findings:
                    finding = run.outcome.findings[0]
                    where = (
                        f"line {finding['line']}: {finding['text']}"
                        if finding["file"] == str(self.path)
                        else ""
                    )
                    look = "That line: which thread gets there with which index?"
                    what = self._grouped().in_its_words(finding["message"])
                    feedback = Feedback(what, where, f"{finding['kind']}, for {case}", look=look)
                    raise CheckFailedError(self.explained(feedback))
                stop = stopped(run.outcome, str(self.path), _subject(self.exercise), self.exercise.seconds)
                if stop is not None:
                    raise CheckFailedError(self.explained(stop))
                if run.judgement is not None and run.judgement.unwritten.any():
                    # why: a kernel that touches nothing has no findings, and earns nothing for that
                    y = self._grouped().output
                    what = f"Nothing was found, but parts of {y} were never written: see the checks above."
                    raise CheckFailedError(self.explained(Feedback(what)))

    def compiles(self) -> None:
        """Fail if Numba's compiler refuses a kernel, or computes in float64.

        Raises:
            NotRunError: there is no compiler here.
        """
        self._ready()
        if self._typing is None:
            raise NotRunError("the compiler was not asked")
        findings = self._typing.findings()
        if findings:
            first = findings[0]
            likely = misconceptions.texts().get("float64") if first.kind == "float64" else None
            where = f"line {first.place.line}: {first.place.text}" if first.place.line else ""
            look = "The types of the names in that line."
            raise CheckFailedError(
                Feedback(first.message, where, f"{len(findings)} such places", likely, look)
            )
        if "fill" in self.source and self._untouched():
            raise CheckFailedError(
                Feedback("It compiles, but nothing is computed yet: see the checks above.")
            )

    def _untouched(self) -> bool:
        """Whether the kernels write nothing at all: a stub compiles too, and earns nothing for that."""
        exercise = self._grouped()
        run = self.run(exercise.cases(self.seed)[0])
        return run.judgement is None or bool(run.judgement.unwritten.all())

    def finds(self, job: dict[str, Any], want: Array, subject: str, most_reads: int | None = None) -> None:
        """Fail if a probed device function gives other values, or reads too much.

        Args:
            job: of kind "probe", with one output [n, 1].
            want: the right values, [n].
            subject: what was called, and with what.
            most_reads: of its first array, in all.
        """
        self._ready()
        outcome = self._do(job)
        feedback = stopped(outcome, str(self.path), subject, self.exercise.seconds)
        if feedback is not None and feedback.pattern == ENDLESS:
            feedback = replace(feedback, likely=misconceptions.texts()["search-never-ends"])
        if feedback is not None:
            raise CheckFailedError(self.explained(feedback))
        got = _values(outcome, (want.size, 1))[:, 0]
        wrong = np.flatnonzero(got != want)
        if outcome.findings or wrong.size:
            what = outcome.findings[0]["message"] if outcome.findings else ""
            if wrong.size:
                index = int(wrong[0])
                what = f"{subject} gives {int(got[index])} for row {index}, wanted {int(want[index])}. {what}"
            where = f"{wrong.size} of {want.size} rows get a wrong answer." if wrong.size else ""
            look = "Walk through the search by hand for that row."
            raise CheckFailedError(self.explained(Feedback(what.strip(), where, look=look)))
        loads = (n for (space, _, kind), n in outcome.traffic.items() if (space, kind) == ("global", "load"))
        reads = max(loads, default=0)
        if most_reads is not None and reads > most_reads:
            what = f"{subject} reads memory {reads} times for {want.size} rows, and {most_reads} are enough."
            raise CheckFailedError(Feedback(what, likely=misconceptions.texts()["search-too-slow"]))

    def places(
        self,
        function: str,
        num_words: int,
        want: Array,
        names: tuple[str, str],
        mistakes: Mapping[str, Array],
    ) -> None:
        """Fail if a device function does not say where a lane's words lie.

        Args:
            function: of a lane and a word; it gives a row and a column.
            num_words: of each lane.
            want: the right places, [32 * num_words, 2], all words of lane 0 first.
            names: what row and column are called.
            mistakes: the places that common mistakes give, by name.
        """
        job = {"kind": "places", "function": function, "num_words": num_words}
        got, wrong, likely = self._pairs(job, want, mistakes)
        if not wrong.size:
            return
        lane, word = divmod(int(wrong[0]), num_words)
        found, right = (", ".join(map(str, each[wrong[0]].tolist())) for each in (got, want))
        what = f"{function}(lane {lane}, word {word}) gives {' and '.join(names)} {found}; wanted {right}."
        where = (
            f"{wrong.size} of {len(want)} places are wrong, of words {np.unique(wrong % num_words).tolist()}."
        )
        look = f"The picture at the top of the file: where in it is word {word} of lane {lane}?"
        raise CheckFailedError(Feedback(what, where, likely=likely, look=look))

    def walks(
        self, function: str, want: Array, names: tuple[str, str], mistakes: Mapping[str, Array]
    ) -> None:
        """Fail if a device function, called with its own last answer again and again, goes another way.

        Args:
            function: of two numbers; it gives the next two.
            want: the right answers from (0, 0) on, [steps, 2].
            names: what the two are called.
            mistakes: the answers that common mistakes give, by name.
        """
        job = {"kind": "walk", "function": function, "num_steps": len(want)}
        got, wrong, likely = self._pairs(job, want, mistakes)
        if not wrong.size:
            return
        step = int(wrong[0])
        before = want[step - 1].tolist() if step else [0, 0]
        arguments = ", ".join(f"{name} {value}" for name, value in zip(names, before, strict=True))
        found, right = (", ".join(map(str, each[step].tolist())) for each in (got, want))
        what = f"{function}({arguments}) gives {' and '.join(names)} {found}; wanted {right}."
        where = f"Call {step + 1} of {len(want)}, each with what the one before gave, from 0 and 0 on."
        look = "The picture at the top of the file: what changes between these two pieces?"
        raise CheckFailedError(Feedback(what, where, likely=likely, look=look))

    def _pairs(
        self, job: dict[str, Any], want: Array, mistakes: Mapping[str, Array]
    ) -> tuple[Array, Array, Misconception | None]:
        """Let a device function give pairs, [n, 2]: what it gave, which are wrong, and by which mistake.

        Raises:
            CheckFailedError: it was stopped, or the simulator found something.
        """
        self._ready()
        output = {"output": guarded_output(len(want), 2, np.int32), "guard": NUM_GUARD_ROWS}
        outcome = self._do(job | {"arguments": [output]})
        feedback = stopped(outcome, str(self.path), job["function"], self.exercise.seconds)
        if feedback is None and outcome.findings:
            feedback = Feedback(outcome.findings[0]["message"])
        if feedback is not None:
            raise CheckFailedError(feedback)
        got = _values(outcome, want.shape)
        key = next((key for key, pairs in mistakes.items() if np.array_equal(got, pairs)), "")
        likely = misconceptions.texts().get(key.split(" (")[0])
        return got, np.flatnonzero((got != want).any(axis=1)), likely

    def executes(self, *cases: Case) -> None:
        """Fail if warps execute an instruction more or less often than the outputs need."""
        self._ready()
        exercise = self._grouped()
        for case in cases:
            run = self.run(case)
            self._must_be_right(run)
            for name, (least, most) in exercise.executions(case).items():
                executed = run.outcome.accesses(name, "warp", "instruction")
                if least <= executed <= most:
                    continue
                enough = f"{least}" if least == most else f"{least} to {most}"
                what = f"Warps execute {name} {executed} times, and {enough} are right, for {case}."
                look = f"The loop around {name}: how many steps does it make, and who runs it?"
                raise CheckFailedError(self.explained(Feedback(what, look=look)))

    # --- checks of host functions -----------------------------------------------------------

    def answers(self, function: str, *cases: Case) -> None:
        """Fail if a host function gives a wrong answer in one of the cases."""
        self._ready()
        question = self._host().question(function)
        for case in (*cases, *question.more):
            feedback, _ = self._ask(question, case)
            if feedback is not None:
                likely = None if "not written yet" in feedback.what else self._likely_in(question)
                raise CheckFailedError(replace(feedback, likely=likely))

    def _ask(self, question: Question, case: Case) -> tuple[Feedback | None, list[str]]:
        """Ask a function about a case; returns what is wrong, and its signs."""
        arguments = question.ask(case, case.rng(self.seed))
        job = {
            "kind": "call",
            "function": question.function,
            "arguments": [{"host": argument} for argument in arguments],
        }
        outcome = self._do(job)
        name = question.function
        stop = stopped(outcome, str(self.path), name, self.exercise.seconds)
        if stop is not None:
            kind = outcome.error.get("type", "") if outcome.status == "raised" else outcome.status
            return stop, [f"raises:{name}:{kind}"]
        got, want = outcome.value, question.want(*arguments)
        problem = _differs(got, want, question.exact_type)
        if not problem:
            return None, []
        signs = [f"wrong:{name}:{problem[0]}", f"case:{name}:{case.name}"]
        if type(got) is np.ndarray and got.shape == want.shape:
            signs += [
                f"equals:{name}:{key}" for key, tells in question.tells.items() if tells(got, *arguments)
            ]
        signs += [
            f"equals:{name}:{key}"
            for key, mistake in question.mistakes.items()
            if not _differs(got, _tried(mistake, arguments), None)
            and _differs(_tried(mistake, arguments), want, None)
        ]
        shown = ", ".join(_short(argument) for argument in arguments)
        what = (
            f"{name}({shown}) {problem[1]}"
            if not case.hidden
            else f"{name} is wrong in a case of the instructor's."
        )
        look = f"The docstring of {name}, line by line, with these numbers on paper."
        return Feedback(what, look=look, printed=outcome.printed), signs

    # --- diagnosis --------------------------------------------------------------------------

    @cached_property
    def signs(self) -> frozenset[str]:
        """Everything that was seen on the exercise's own cases, as short names."""
        cases = self.exercise.cases(self.seed)
        if isinstance(self.exercise, HostExercise):
            asked = (self._signs_of_question(question, cases) for question in self.exercise.questions)
            return frozenset().union(*asked)
        return frozenset(self._signs_of_runs([*cases, NO_TOKENS]))

    def _signs_of_question(self, question: Question, cases: Sequence[Case]) -> set[str]:
        seen = [self._ask(question, case)[1] for case in (*cases, *question.more)]
        return _shared([signs for signs in seen if signs])

    def _signs_of_runs(self, cases: Sequence[Case]) -> set[str]:
        exercise = self._grouped()
        signs: set[str] = set()
        seen: list[list[str]] = []
        for case in cases:
            if not case.total and exercise.num_launches(case):
                continue
            run = self.run(case)
            outcome, judgement = run.outcome, run.judgement
            if outcome.status not in ("ok", "finding"):
                signs.add(f"stopped:{outcome.error.get('type') or outcome.status}")
            for finding in outcome.findings:
                signs |= {_finding_sign(finding, str(self.path), run), f"found:{case.name}"}
                signs |= _missing_signs(finding["message"])
            made, right = len(outcome.launches), exercise.num_launches(case)
            if outcome.status == "ok" and made != right:
                signs.add(f"launches:{_launch_sign(made, right, case)}")
            if judgement is None or outcome.status != "ok":
                continue  # why: what a stopped kernel has not written says nothing
            if judgement.ok:
                signs |= {
                    f"reads:{a}" for a, most in exercise.most_reads(case).items() if _reads(outcome, a) > most
                }
                for name, (least, most) in exercise.executions(case).items():
                    executed = outcome.accesses(name, "warp", "instruction")
                    if not least <= executed <= most:
                        signs.add(f"executes:{name}:{_amount(executed, least)}")
            else:
                signs.add(f"case:{case.name}")
                seen.append([*(f"equals:{name}" for name in judgement.equals), *judgement.signs])
        return signs | _shared(seen)

    def _likely_in(self, question: Question) -> Misconception | None:
        """The known mistake in one host function, by what was seen of that function alone."""
        cases = self.exercise.cases(self.seed)
        marks = f":{question.function}:"
        known = [
            (key, frozenset(sign for sign in signs if marks in sign))
            for key, signs in misconceptions.signatures(self.exercise.name)
        ]
        key = misconceptions.likeliest(self._signs_of_question(question, cases), known)
        return misconceptions.texts().get(key)

    @cached_property
    def likely(self) -> Misconception | None:
        """The known mistake that fits best what was seen, if one fits well."""
        key = misconceptions.likeliest(self.signs, misconceptions.signatures(self.exercise.name))
        return misconceptions.texts().get(key)

    def explained(self, feedback: Feedback) -> Feedback:
        """The feedback with the known mistake that fits what was seen, if one does."""
        if feedback.likely is not None or "not written yet" in feedback.what or self._does_nothing:
            return feedback
        likely = self.likely
        if feedback.pattern == ENDLESS:
            likely = misconceptions.texts()[
                "endless-loop"
            ]  # why: what a stopped kernel left behind says nothing
        return replace(feedback, likely=likely)

    @cached_property
    def _does_nothing(self) -> bool:
        """Whether no kernel stores anything, on any case: then there is nothing to diagnose."""
        if isinstance(self.exercise, HostExercise):
            return False
        runs = [self.run(case) for case in self.exercise.cases(self.seed)[:3]]
        return all(run.outcome.status == "ok" and not run.outcome.stores for run in runs)

    def _grouped(self) -> GroupedExercise:
        if not isinstance(self.exercise, GroupedExercise):
            raise TypeError(f"{self.exercise.name} has no kernel")
        return self.exercise

    def _host(self) -> HostExercise:
        if not isinstance(self.exercise, HostExercise):
            raise TypeError(f"{self.exercise.name} has no host functions")
        return self.exercise


def _shared(seen: list[list[str]]) -> set[str]:
    """Signs of all failing cases together: as they are if all have them, else with how many have them."""
    signs = set()
    for sign in {sign for each in seen for sign in each}:
        share = sum(sign in each for each in seen) / len(seen)
        if share > 0.99:
            signs.add(sign)
        elif not sign.startswith("case"):
            signs.add(f"{'often' if share >= 0.5 else 'sometimes'}:{sign}")
    return signs


def _finding_sign(finding: dict[str, Any], path: str, run: Run) -> str:
    """Kind and array of a finding; of a stray index also the axis, and on which side it is."""
    if finding["kind"] == "launch":
        number = len(run.outcome.launches) - 1  # of the expert, if every expert is launched
        empty = number < len(run.case.counts) and run.case.counts[number] == 0
        return f"finding:launch:{'empty expert' if empty else 'few rows'}"
    array = finding["text"].split("[")[0] if finding["file"] == path else ""
    stray = re.match(r"index (-?)\d+ is outside axis (\d+)", finding["message"])
    side = f":axis {stray[2]} {'below' if stray[1] else 'above'}" if stray else ""
    return f"finding:{finding['kind']}:{array}{side}"


def _missing_signs(message: str) -> set[str]:
    """What the mbarriers lack that a deadlock waits for."""
    missing = re.findall(r"\((\d+) arrivals and (-?)(\d+) bytes are missing\)", message)
    return {
        f"finding:mbarrier:{f'{sign}bytes' if num_bytes != '0' else f'{arrivals} arrivals'}"
        for arrivals, sign, num_bytes in missing
    }


def _values(outcome: Outcome, shape: tuple[int, ...]) -> Array:
    """What a device function gave, between its guard rows; -1 everywhere if that is not of this shape."""
    if len(outcome.outputs) == 1 and outcome.outputs[0].shape == (shape[0] + 2 * NUM_GUARD_ROWS, *shape[1:]):
        values: Array = outcome.outputs[0][NUM_GUARD_ROWS:-NUM_GUARD_ROWS]
        return values
    return np.full(shape, -1)


def _reads(outcome: Outcome, array: str) -> int:
    return outcome.loads if array == ALL_ARRAYS else outcome.accesses(array)


def _amount(executed: int, least: int) -> str:
    return "never" if not executed else "too seldom" if executed < least else "too often"


def _launch_sign(made: int, right: int, case: Case) -> str:
    known = {
        0: "none",
        len(case.counts): "every expert",
        2 * right: "twice",
        1: "one",
        case.total: "every row",
    }
    return known.get(made, "more" if made > right else "fewer")


def _subject(exercise: Exercise) -> str:
    return "the launcher" if exercise.name.startswith("ex02") else "the kernel"


def _tried(mistake: Any, arguments: tuple[Any, ...]) -> Any:
    try:
        return mistake(*arguments)
    except (ValueError, IndexError, TypeError, ZeroDivisionError):
        return None


def _differs(got: Any, want: Any, exact_type: type | None) -> tuple[str, str] | None:
    """How an answer differs from the right one, as a short name and the rest of a sentence."""
    if got is None:
        return (
            "type",
            f"returns nothing: it is not written yet, or a path has no return; wanted {_short(want)}",
        )
    if exact_type is not None and type(got) is not exact_type:
        return "type", f"is of type {type(got).__name__}, wanted {exact_type.__name__}: {_short(want)}"
    if not isinstance(want, np.ndarray):
        return (
            None
            if type(got) is type(want) and got == want
            else ("value", f"is {_short(got)}, wanted {_short(want)}")
        )
    if type(got) is not np.ndarray:
        return "type", f"is of type {type(got).__name__}, wanted an array: {_short(want)}"
    if got.shape != want.shape:
        return (
            "shape",
            f"has shape {got.shape}, wanted {want.shape}: it is {_short(got)}, wanted {_short(want)}",
        )
    if got.dtype != want.dtype:
        return "dtype", f"is {got.dtype}, wanted {want.dtype}"
    if not np.array_equal(got, want):
        at = tuple(int(i) for i in np.argwhere(~(got == want))[0])
        place = at[0] if len(at) == 1 else at
        return "value", f"is {_short(got)}, wanted {_short(want)}: the first difference is at {place}"
    return None


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        with np.printoptions(precision=4, suppress=True, threshold=24, linewidth=100):
            return str(value.tolist() if value.size <= SHOWN_NUMBERS and value.dtype.kind in "iu" else value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
