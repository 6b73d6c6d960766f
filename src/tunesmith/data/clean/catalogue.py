"""The steps there are. Each is a pure function over a batch of texts, named here and loaded when it is used.

A text comes back as the same object where there was nothing to do, so that a batch costs what its changes cost.
Lossless steps take away only what no reader sees; they are on unless settings say otherwise.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import InputError, Problem
from tunesmith.data.clean.stages import Replace

Batch = Callable[[list[str]], list[str]]  # as many texts out as in


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    name: str
    function: str  # "module:function"; of boilerplate, the function that makes the step from its counts
    what: str  # one line for people
    lossless: bool = False
    idempotent: bool = True

    def resolve(self) -> Batch:
        module, name = self.function.split(":")
        return getattr(importlib.import_module(module), name)


HERE = "tunesmith.data.clean"
BOILERPLATE = Step(
    name="boilerplate",
    function=f"{HERE}.boilerplate:remove",
    what="takes out lines or paragraphs that many rows repeat",
)
# in the order in which they are best used: bytes before characters, mail before the HTML inside it, tags before
# entities (an entity may spell a tag), white space after whatever leaves holes, boilerplate on what people wrote
STEPS: tuple[Step, ...] = (
    Step(
        name="encoding",
        function=f"{HERE}.characters:encoding",
        what="repairs text that was decoded with the wrong encoding (schÃ¶n -> schön)",
    ),
    Step(
        name="control",
        function=f"{HERE}.characters:control",
        what="takes out control, zero-width and bidi override characters and soft hyphens; joiners stay where a script needs them",
        lossless=True,
    ),
    Step(
        name="unicode",
        function=f"{HERE}.characters:unicode",
        what="writes each character one way (NFC)",
        lossless=True,
    ),
    Step(
        name="mail",
        function=f"{HERE}.mail:mail",
        what="decodes raw mail and takes out headers, quoted replies, forwarded mail, signatures and list footers; the subject stays",
    ),
    Step(
        name="html",
        function=f"{HERE}.markup:html",
        what="turns HTML into text with its paragraphs, lists and links' words; scripts and styles go",
    ),
    Step(
        name="unescape",
        function=f"{HERE}.characters:unescape",
        what="turns entities into characters, one level of them (&amp;lt; -> &lt;)",
        idempotent=False,
    ),
    Step(
        name="quotes",
        function=f"{HERE}.characters:quotes",
        what="writes curly quotes and apostrophes as straight ones",
    ),
    Step(
        name="whitespace",
        function=f"{HERE}.whitespace:whitespace",
        what="one kind of line break and of space, no blanks at line ends, at most two blank lines in a row",
        lossless=True,
    ),
    BOILERPLATE,
)
NAMES = {step.name: step for step in STEPS}
LOSSLESS = tuple(step.name for step in STEPS if step.lossless)


def check_steps(steps: Sequence[str | Replace], where: str = "data.clean") -> None:
    """Raises one InputError for every name that is unknown or twice, and every pattern that cannot be used."""
    from tunesmith.data.clean.patterns import problem_with

    problems: list[Problem] = []
    seen: set[str] = set()
    for i, step in enumerate(steps):
        place = f"{where}[{i}]"
        if isinstance(step, Replace):
            if problem := problem_with(step, place):
                problems.append(problem)
        elif step not in NAMES:
            near = difflib.get_close_matches(step, NAMES, n=1)
            guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NAMES)}"
            problems.append(Problem(where=place, what=f"{step!r} is not a cleaning step; {guess}"))
        elif step in seen:
            problems.append(Problem(where=place, what=f"{step!r} is named twice", fix="name each step once"))
        else:
            seen.add(step)
    if problems:
        raise InputError(problems)
