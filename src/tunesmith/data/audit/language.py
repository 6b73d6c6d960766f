"""Which language a text is in (py3langid, 97 languages), from its first characters.

Short texts and mixtures stay undetermined ("und") rather than wrong: code words and names look like any language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tunesmith.core.extras import need

READ = 240  # characters; more cost time and change next to nothing
MIN_LETTERS = 40
MIN_PROBABILITY = 0.95
UNDETERMINED = "und"
_NOT_PROSE = re.compile(r"https?://\S+|\S+@\S+|[\d_<>{}\[\]()|=*/\\#~^+]+")


@lru_cache(maxsize=1)
def identifier() -> Callable[[str], tuple[str, float]]:
    """`identify(text) -> (ISO 639-1 code or "und", probability)`. Needs the audit extra."""
    langid = need("py3langid.langid", extra="audit", why="telling languages apart")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def identify(text: str) -> tuple[str, float]:
        prose = _NOT_PROSE.sub(" ", text[: 2 * READ])[:READ]
        if sum(map(str.isalpha, prose)) < MIN_LETTERS:
            return UNDETERMINED, 0.0
        code, probability = model.classify(prose)
        return (code, float(probability)) if probability >= MIN_PROBABILITY else (UNDETERMINED, float(probability))

    return identify
