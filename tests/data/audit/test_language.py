"""Many texts at once are told apart exactly as py3langid tells each of them."""

from __future__ import annotations

import random

import pytest

from tunesmith.data.audit import language
from tunesmith.data.audit.language import MIN_PROBABILITY, READ, UNDETERMINED, identifier, identify_all

langid = pytest.importorskip("py3langid.langid")

SAMPLES = (
    "Der schnelle braune Fuchs springt über den faulen Hund und läuft weiter durch den Wald bis zum Abend.",
    "Le conseil municipal a décidé hier soir de rénover la vieille école du village avant la rentrée prochaine.",
    "El ayuntamiento anunció ayer que las obras del puente terminarán antes de que empiece el verano.",
    "Городской совет вчера решил отремонтировать старую школу до начала учебного года в сентябре.",
    "市议会昨天决定在学年开始之前翻修旧学校，并且为新的图书馆拨款，居民们对此表示欢迎，也提出了不少建议和意见，希望早日完成。",
    "The council decided on the repair of the old school, which was closed to the pupils for that and for more.",
    "qwrtp zxcvb mnbvc lkjhg fdsap poiuy trewq asdfg hjklz xcvbn mqwer tyuio",
    "ELLER SKAL VI TALE OM NOGET HELT ANDET I AFTEN, NÅR VI MØDES VED HAVNEN IGEN?",
    "12 34 56",
    "",
)


def test_together_is_as_one_by_one_and_as_the_package_itself() -> None:
    rng = random.Random(0)
    texts = [*SAMPLES]
    for _ in range(300):
        words = " ".join(rng.sample(SAMPLES, 2)).split()
        texts.append(" ".join(rng.choices(words, k=rng.randint(5, 60))))
    together = identify_all(texts)
    assert together == [identifier()(text) for text in texts]
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    settled = 0
    for text, (code, probability) in zip(texts, together, strict=True):
        prose = language._NOT_PROSE.sub(" ", text[: 2 * READ])[:READ]
        if probability in (0.0, 1.0):  # too short, or plain English
            continue
        theirs, sure = model.classify(prose)
        assert probability == sure
        assert code == (theirs if sure >= MIN_PROBABILITY else UNDETERMINED)
        settled += 1
    assert settled > 200
    assert {code for code, _ in together} >= {"de", "fr", "es", "ru", "en", UNDETERMINED}


def test_no_texts() -> None:
    assert identify_all([]) == []


@pytest.mark.parametrize(
    "text", ["a@b.c " + "Wort " * 60, "https://example.org/x " + "Wort " * 60, "1 [2] " + "Wort " * 60]
)
def test_links_and_addresses_are_no_prose(text: str) -> None:
    assert identify_all([text])[0][0] == identify_all(["Wort " * 60])[0][0]
