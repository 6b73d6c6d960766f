"""Which language a text is in (py3langid, 97 languages), from its first characters.

Short texts and mixtures stay undetermined ("und") rather than wrong: code words and names look like any language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tunesmith.core.extras import need
from tunesmith.data.audit.reading import word_set

READ = 240  # characters; more cost time and change next to nothing
MIN_LETTERS = 40
MIN_PROBABILITY = 0.95
UNDETERMINED = "und"
_SIGNS = r"[\d_<>{}\[\]()|=*/\\#~^+]+"
_NOT_PROSE = re.compile(rf"https?://\S+|\S+@\S+|{_SIGNS}")
_NOT_LETTERS = re.compile(_SIGNS)  # the same where there is no link and no address, and many times as fast


_ENGLISH = word_set("the and of to is was that with for are this have from were which their been they would")


def _is_plain_english(prose: str) -> bool:
    """Beyond doubt, without the model: ASCII, "the", and three more of its commonest words in every seventh place.
    On 6,284 pieces of XSum it spares 71 % the model, and the model says English of every one of them."""
    words = prose.lower().split()
    common = [w for w in words if w in _ENGLISH]
    return "the" in common and len(set(common)) >= 4 and 7 * len(common) >= len(words) and prose.isascii()


@lru_cache(maxsize=1)
def identifier() -> Callable[[str], tuple[str, float]]:
    """`identify(text) -> (ISO 639-1 code or "und", probability)`. Needs the audit extra."""
    langid = need("py3langid.langid", extra="audit", why="telling languages apart")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def identify(text: str) -> tuple[str, float]:
        start = text[: 2 * READ]
        prose = (_NOT_PROSE if "@" in start or "://" in start else _NOT_LETTERS).sub(" ", start)[:READ]
        if sum(map(str.isalpha, prose)) < MIN_LETTERS:
            return UNDETERMINED, 0.0
        if _is_plain_english(prose):
            return "en", 1.0
        code, probability = model.classify(prose)
        return (code, float(probability)) if probability >= MIN_PROBABILITY else (UNDETERMINED, float(probability))

    return identify
