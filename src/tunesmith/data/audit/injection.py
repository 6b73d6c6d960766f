"""Texts that speak to the model instead of to a person: prompt injection, jailbreaks, tokens of chat templates.

Training on them teaches the model to obey them; a special token in a text can end a turn where none ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.data.audit.reading import Reading, word_set
from tunesmith.data.audit.spans import Span

_ALL = r"(?:all |any |every |the |your |my |these |those |of |previous |prior |above |earlier |preceding |foregoing |existing |original |initial |system |other )"
_RULES = r"(?:instructions?|directions?|prompts?|rules?|guidelines?|commands?|directives?|programming|training|messages?|context|policies|restrictions?)"
_OVERRIDE = word_set("ignore disregard forget bypass override neglect skip follow following")
_TOLD = word_set(
    "instruction instructions direction directions prompt prompts rule rules guideline guidelines command commands directive "
    "directives programming training message messages context policies restriction restrictions everything anything all"
)
_ACT = word_set("act pretend behave respond answer roleplay play role")
_LIMITS = word_set(
    "restriction restrictions limit limits limitation limitations filter filters rules guidelines constraints boundaries "
    "censorship confines"
)
_ANY = frozenset[str]()
# what, score, words of which one must be in the text, and one of these, pattern
PHRASES: tuple[tuple[str, float, frozenset[str], frozenset[str], str], ...] = (
    ("override", 0.95, _OVERRIDE, _TOLD,
     rf"\b(?:ignore|disregard|forget|bypass|override|neglect|skip|do not follow|stop following) {_ALL}{{1,5}}{_RULES}\b"),
    ("override", 0.9, _OVERRIDE, _TOLD,
     r"\b(?:ignore|disregard|forget) (?:everything|anything|all) (?:above|before|(?:that|you) (?:was|were|have been) (?:said|told|instructed))"),
    ("override", 0.8, frozenset(("instruction", "instructions")), frozenset(("new",)), r"\bnew (?:system )?instructions?:"),
    ("prompt_leak", 0.9, word_set("prompt instruction instructions message"), word_set("system initial hidden secret"),
     rf"\b(?:reveal|show|print|repeat|output|display|tell me|give me|what (?:is|are|was)) (?:me )?{_ALL}{{0,4}}(?:system|initial|hidden|secret) (?:prompt|instructions?|message)"),
    ("prompt_leak", 0.8, frozenset(("repeat",)), frozenset(("above",)), r"\brepeat (?:the|all|every) (?:words|text|instructions|sentences) above\b"),
    ("jailbreak", 0.95, word_set("dan jailbreak jailbroken developer god sudo unrestricted uncensored anything"), word_set("now mode jailbreak"),
     r"\bdo anything now\b|\bDAN mode\b|\b(?:jailbreak(?:ed)?|developer|god|sudo|unrestricted|uncensored) mode (?:enabled|activated|on\b)|\[?🔓JAILBREAK"),
    ("jailbreak", 0.8, _ACT, _LIMITS,
     r"\b(?:act|pretend|behave|respond|answer|roleplay|role-play)\b[^.\n]{0,60}\b(?:without|no|free (?:of|from)|not bound by) (?:any |all |the |its |your )?(?:(?:moral|ethical|content|safety|usual|openai)(?: and | or |, |/)?){0,3} ?(?:restrictions?|limits?|limitations?|filters?|rules|guidelines|constraints|boundaries|censorship)"),
    ("jailbreak", 0.8, word_set("you ai it model chatbot assistant"), _LIMITS,
     r"\b(?:you|ai|it|model|chatbot|assistant)\b[^.\n]{0,40}\b(?:has|have|with|having|are|is) (?:absolutely )?(?:no|not bound by|free (?:of|from)|freed from|without|unbound by) (?:any |all |the )?(?:(?:moral|ethical|legal|content|safety|typical)(?: and | or |, |/)?){0,4} ?(?:restrictions?|filters?|guidelines|censorship|limitations|boundaries|confines of ai)"),
    ("jailbreak", 0.7, frozenset(("character",)), word_set("stay remain keep break leave breaking"),
     r"\b(?:stay|remain|keep) in character\b|\bnever (?:break|leave) character\b|\bbreak(?:ing)? character\b"),
    ("jailbreak", 0.8, frozenset(("now", "going")), frozenset(("you",)),
     r"\b(?:you are (?:now )?going to|from now on,? you(?:'ll| will| are)|you will now) (?:pretend|act|play|roleplay|respond|be)\b|\bfrom now on you (?:are|will)\b"),
    ("jailbreak", 0.75, word_set("never not don cannot can"), word_set("ai ethical illegal immoral unethical sorry request question answer"),
     r"\b(?:never|do(?: not|n't)|cannot|can't) (?:say|tell|inform|remind|mention|refuse|decline|apologi[sz]e|warn|reject)\b[^.\n]{0,60}\b(?:as an ai|ethical|illegal|immoral|unethical|you can't|can ?not|i'm sorry)\b|\b(?:never|do(?: not|n't)|cannot|can't) (?:refuse|decline|reject)\b[^.\n]{0,30}\b(?:requests?|questions?|answer)\b"),
    ("jailbreak", 0.7, word_set("unethical immoral illegal amoral unfiltered uncensored"), word_set("ai chatgpt gpt chatbot bot assistant model prompt response responses answer answers"),
     r"\b(?:unethical|immoral|illegal|amoral|unfiltered|uncensored)[, ]{1,2}(?:(?:and|or) )?(?:unethical|immoral|illegal|amoral|unfiltered|uncensored|harmful|dangerous|response|answer|advice)"),
    ("role_marker", 0.8, word_set("instruction instructions system response responses assistant"), _ANY,
     r"^\s*(?:#{2,3} ?(?:instruction|system|response)s?:|(?:system|assistant) ?(?:prompt|message) ?:|</?(?:system|assistant|instructions?)>)"),
)  # fmt: skip
_PHRASES = tuple(
    (what, score, one, other, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for what, score, one, other, pattern in PHRASES
)
_SPECIAL = re.compile(
    r"<\|[A-Za-z0-9_\-./ ]{1,40}\|>|<｜[^｜<>]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad|unk|mask|sep|cls)>|\[(?:CLS|SEP|MASK|PAD|UNK|BOS|EOS)\]|\[(?:/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS))\]"
    r"|<\/?(?:tool_call|tool_response|think)>|<unused\d+>|<extra_id_\d+>"
)
_SURE = ("<|", "<｜", "[INST]", "[/INST]", "<<SYS>>", "<start_of_turn>", "<end_of_turn>")


def find_phrases(reading: Reading) -> Iterator[Span]:
    """Prompt injection and jailbreak markers, English."""
    vocabulary = reading.vocabulary
    for what, score, one, other, pattern in _PHRASES:
        if one.isdisjoint(vocabulary) or (other and other.isdisjoint(vocabulary)):
            continue
        for m in pattern.finditer(reading.text):
            yield Span(m.start(), m.end(), "injection", what, score)


def find_special_tokens(text: str) -> Iterator[Span]:
    """Tokens of chat templates. `<s>` is also struck-out text in HTML, so it says less than `<|im_end|>`."""
    if "<" in text or "[" in text:
        for m in _SPECIAL.finditer(text):
            score = 0.95 if m.group().startswith(_SURE) else 0.6
            yield Span(m.start(), m.end(), "special_token", m.group(), score)
