"""The published OpenAPI page is true: no request built from it, right or wrong, meets a 5xx or an undocumented answer."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from tests.serve.conftest import Live, _start
from tunesmith.serve.bundle import LoadedBundle

SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@pytest.fixture(scope="module")
def served(chat_bundle: LoadedBundle, classify_bundle: LoadedBundle) -> Iterator[Live]:
    stops: list[Any] = []
    yield _start(stops, {"prod": chat_bundle, "coder": classify_bundle}, max_tokens=16)
    for stop in stops:
        stop()


def check(case: Any) -> int:
    """`model` is drawn from what exists half of the time, or nearly every case would end at 404."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str) and len(case.body["model"]) % 2:
        case.body["model"] = "prod" if len(case.body["model"]) % 4 == 1 else "coder"
    if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
        case.body["max_tokens"] = min(case.body["max_tokens"], 16)
    checks = schemathesis.checks
    answer = case.call(timeout=20)
    case.validate_response(
        answer,
        checks=[
            checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.content_type_conformance,
            schemathesis.specs.openapi.checks.response_schema_conformance,
        ],
    )
    return answer.status_code


ROUTES = [
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
]


def run(served: Live, method: str, path: str, examples: int) -> Counter[int]:
    """Half the cases follow the schema, half break it on purpose."""
    schema = schemathesis.openapi.from_url(f"{served.base}/openapi.json")
    operation = schema[path][method]
    statuses: Counter[int] = Counter()
    for mode in schemathesis.GenerationMode:
        try:
            strategy = operation.as_strategy(generation_mode=mode)
            strategy.validate()
        except Exception as e:  # a route without parameters can't be called wrongly
            assert "negative" in str(e).lower() or mode.is_negative, e
            continue

        @given(case=strategy)
        @settings(max_examples=max(examples // 2, 1), **SETTINGS)
        def one(case: Any) -> None:
            statuses[check(case)] += 1

        with contextlib.suppress(Unsatisfiable):
            one()
    return statuses


def test_every_published_route_is_tried(served: Live) -> None:
    schema = schemathesis.openapi.from_url(f"{served.base}/openapi.json")
    found = {(o.ok().method.upper(), o.ok().path) for o in schema.get_all_operations()}
    assert found == set(ROUTES)


@pytest.mark.parametrize("method, path", ROUTES)
def test_no_request_breaks_the_contract(served: Live, method: str, path: str) -> None:
    statuses = run(served, method, path, 40)
    assert statuses.total() and (method == "GET" or (statuses[200] and statuses[400]))


@pytest.mark.slow
@pytest.mark.parametrize("method, path", ROUTES)
def test_a_thousand_requests_a_route_break_no_contract(served: Live, method: str, path: str) -> None:
    assert run(served, method, path, 1000).total() >= (1000 if method == "POST" else 1)
