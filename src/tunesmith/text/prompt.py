"""The default system prompt: short, in the task's own terms, the same for every row of a task.

Short because it is read again with every row, by small models too; the names of the user's columns are used
because they say best what the text and the answer are ("Give the chapter of the description.").
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.nouns import Task


def system_prompt(task: Task, labels: Sequence[str], *, list_labels: bool) -> str:
    """`task.system` as it stands where the user wrote one. `labels` are listed for classify when `list_labels`:
    a model that is not tuned must be told them, a tuned one knows. Empty for domain, which has no conversations."""
    if task.system is not None:
        return task.system
    if task.kind == "domain":
        return ""
    sentences = [_duty(task)]
    if task.audience:
        sentences.append(f"Your readers: {_sentence(task.audience)}")
    if task.tone:
        sentences.append(f"Tone: {_sentence(task.tone)}")
    prompt = " ".join(sentences)
    if task.kind == "classify" and list_labels and labels:
        prompt += "\n\nThe possible answers:\n" + "\n".join(f"- {label}" for label in labels)
    return prompt


def _duty(task: Task) -> str:
    text = _name(task.text, "text")
    match task.kind:
        case "classify":
            label = _name(task.label, "label")
            return f"Give the {label} of the {text}. Answer with exactly one {label} and nothing else."
        case "extract":
            what = _name(task.label, "data")
            return f"Extract the {what} from the {text}. Answer with the {what} alone, as the {text} has it."
        case "summarize":
            return f"Summarize the {text}. Keep to what it says."
        case "instruct":
            return "Do what the user asks. Answer correctly and keep to the point."
        case _:
            return "You are a helpful assistant."


def _name(column: str | None, otherwise: str) -> str:
    """A column's name as a word in a sentence: "icd_chapter" becomes "icd chapter"."""
    return " ".join((column or otherwise).replace("_", " ").split()) or otherwise


def _sentence(words: str) -> str:
    words = " ".join(words.split())
    return words if words.endswith((".", "!", "?")) else f"{words}."
