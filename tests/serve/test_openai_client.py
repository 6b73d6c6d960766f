"""The official client, unmodified, against a live server."""

from __future__ import annotations

import threading

import openai
import pytest

from tests.serve.conftest import Live, Start
from tunesmith.core.nouns import Message
from tunesmith.model.answer import LanguageModel
from tunesmith.serve.bundle import LoadedBundle

USER = [{"role": "user", "content": "Fracture of shaft of left tibia"}]
TOKEN = "a-token-of-decent-length"


def test_chat_answers_with_usage_and_finish_reason(live: Live) -> None:
    answer = live.client().chat.completions.create(model="prod", messages=USER, max_tokens=7)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert 1 <= answer.usage.completion_tokens <= 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert choice.finish_reason == "stop" or answer.usage.completion_tokens == 7


def test_a_stream_joins_to_the_whole_answer(live: Live) -> None:
    client = live.client()
    whole = client.chat.completions.create(model="prod", messages=USER, max_tokens=20)
    chunks = list(
        client.chat.completions.create(
            model="prod", messages=USER, max_tokens=20, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content != ""
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert sum(1 for c in chunks if c.choices and c.choices[0].delta.content) > 3  # it did come in pieces


def test_logprobs_name_the_chosen_token_among_the_likeliest(live: Live) -> None:
    answer = live.client().chat.completions.create(
        model="prod", messages=USER, max_tokens=6, logprobs=True, top_logprobs=3, temperature=0
    )
    tokens = answer.choices[0].logprobs.content
    assert "".join(t.token for t in tokens) == answer.choices[0].message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)  # greedy takes the likeliest
        assert token.logprob <= 0


def test_n_gives_different_samples_and_a_seed_repeats_them(live: Live) -> None:
    def ask(seed: int) -> list[str]:
        answer = live.client().chat.completions.create(
            model="prod", messages=USER, max_tokens=12, n=3, temperature=1.5, seed=seed
        )
        return [c.message.content for c in answer.choices]

    first = ask(11)
    assert len(set(first)) == 3
    assert ask(11) == first
    assert ask(12) != first


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(live: Live) -> None:
    client = live.client()
    whole = client.chat.completions.create(model="prod", messages=USER, max_tokens=20).choices[0].message.content
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = client.chat.completions.create(model="prod", messages=USER, max_tokens=20, stop=["never said", stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    chunks = client.chat.completions.create(model="prod", messages=USER, max_tokens=20, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole[: whole.index(stop)]


def test_completions_continue_plain_text(live: Live) -> None:
    client = live.client()
    answer = client.completions.create(model="prod", prompt=["the quick", "brown"], n=2, max_tokens=5, logprobs=2)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text == answer.choices[1].text  # greedy
    assert len(answer.choices[0].logprobs.tokens) >= 1 and len(answer.choices[0].logprobs.top_logprobs[0]) == 2
    chunks = list(client.completions.create(model="prod", prompt="the quick", max_tokens=5, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == answer.choices[0].text


def test_models_are_listed_and_found(live: Live) -> None:
    names = [m.id for m in live.client().models.list()]
    assert names == ["prod", "coder", "coder:generate"]
    assert live.client().models.retrieve("coder").id == "coder"
    with pytest.raises(openai.NotFoundError, match="there is no such model here; there is: prod, coder"):
        live.client().models.retrieve("gpt-4")


def test_a_classification_bundle_answers_with_the_evaluated_label(live: Live, classify_bundle: LoadedBundle) -> None:
    text = "Die Aktie fiel um drei Prozent"
    want = LanguageModel(classify_bundle.model, classify_bundle.renderer).choose(
        [[Message(role="user", content=text)]], classify_bundle.labels, batch_tokens=4096
    )[0]
    answer = live.client().chat.completions.create(model="coder", messages=[{"role": "user", "content": text}])
    choice = answer.choices[0]
    assert choice.message.content == want.text and choice.finish_reason == "stop"
    extra = choice.model_extra["tunesmith"]
    assert extra["confidence"] == pytest.approx(want.confidence, abs=1e-5)
    assert sum(extra["label_probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert next(iter(extra["label_probabilities"])) == want.text


def test_a_label_streams_with_logprobs_that_sum_to_its_own(live: Live, classify_bundle: LoadedBundle) -> None:
    chunks = list(
        live.client().chat.completions.create(model="coder", messages=USER, stream=True, logprobs=True, top_logprobs=2)
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text in classify_bundle.labels
    tokens = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert "".join(t.token for t in tokens) == text
    want = LanguageModel(classify_bundle.model, classify_bundle.renderer).choose(
        [[Message(role="user", content=USER[0]["content"])]], classify_bundle.labels, batch_tokens=4096
    )[0]
    assert want.logprob is not None
    assert sum(t.logprob for t in tokens) >= want.logprob - 1e-4  # the rest is the stop token's
    assert chunks[-1].choices[0].model_extra["tunesmith"]["confidence"] == pytest.approx(want.confidence, abs=1e-5)


def test_sampled_labels_follow_the_seed_and_stay_labels(live: Live, classify_bundle: LoadedBundle) -> None:
    def ask() -> list[str]:
        answer = live.client().chat.completions.create(model="coder", messages=USER, n=16, temperature=2.0, seed=5)
        return [c.message.content for c in answer.choices]

    drawn = ask()
    assert drawn == ask() and set(drawn) <= set(classify_bundle.labels)
    assert len(set(drawn)) > 1


def test_free_text_of_a_classification_bundle_is_asked_for_by_name(live: Live, classify_bundle: LoadedBundle) -> None:
    answer = live.client().chat.completions.create(model="coder:generate", messages=USER, max_tokens=9)
    assert answer.choices[0].message.content not in classify_bundle.labels
    assert "label_probabilities" not in answer.choices[0].model_extra["tunesmith"]


def test_two_clients_at_once_get_their_own_answers(live: Live) -> None:
    texts = ["Neoplasms", "Der Ball ist rund"]

    def ask(text: str) -> str:
        messages = [{"role": "user", "content": text}]
        return (
            live.client()
            .chat.completions.create(model="prod", messages=messages, max_tokens=24)
            .choices[0]
            .message.content
        )

    alone = [ask(t) for t in texts]
    assert alone[0] != alone[1]
    got: dict[str, str] = {}
    threads = [threading.Thread(target=lambda t=t: got.__setitem__(t, ask(t))) for t in texts]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [got[t] for t in texts] == alone


def test_a_wrong_token_is_refused_and_the_right_one_is_not(start: Start, chat_bundle: LoadedBundle) -> None:
    live = start({"prod": chat_bundle}, token=TOKEN)
    with pytest.raises(openai.AuthenticationError, match="a valid token is needed"):
        live.client("wrong-token").models.list()
    assert [m.id for m in live.client(TOKEN).models.list()] == ["prod"]


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not supported by this server"),
        ({"response_format": {"type": "json_object"}}, "response_format other than {'type': 'text'} is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not supported"),
        ({"temperature": 3}, "temperature: Input should be less than or equal to 2"),
        ({"n": 17}, "n: Input should be less than or equal to 16"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop: .*at most 4"),
        ({"max_tokens": 401}, "max_tokens is 401; this server allows at most 400"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens and max_completion_tokens differ"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options is only allowed when stream is true"),
        ({"extra_body": {"min_p": 0.1}}, "Unrecognized request argument supplied: min_p"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "only text parts are supported",
        ),
        ({"messages": []}, "messages: .*at least 1"),
        ({"messages": [{"role": "user", "content": ""}]}, "every message is empty"),
        ({"messages": [{"role": "user", "content": "the fox " * 400}]}, "maximum context length is 512 tokens"),
    ],
)
def test_nothing_is_silently_ignored(live: Live, extra: dict, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        live.client().chat.completions.create(**{"model": "prod", "messages": USER, **extra})
    assert refused.value.body["type"] == "invalid_request_error"


def test_defaults_said_aloud_are_accepted(live: Live) -> None:
    said = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "tools": [],
        "response_format": {"type": "text"},
        "n": 1,
        "store": False,
        "stream": False,
        "user": "somebody",
        "max_completion_tokens": 3,
    }
    first = live.client().chat.completions.create(model="prod", messages=USER, **said)
    turns = [*USER, first.choices[0].message.model_dump(), {"role": "user", "content": "and?"}]
    again = live.client().chat.completions.create(model="prod", messages=turns, max_tokens=3)
    assert again.usage.prompt_tokens > first.usage.prompt_tokens


def test_text_parts_and_developer_turns_mean_the_same_as_their_plain_forms(live: Live) -> None:
    client = live.client()
    plain = [{"role": "system", "content": "Be brief."}, *USER]
    parts = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Fracture of shaft"}, {"type": "text", "text": " of left tibia"}],
        },
    ]
    answers = [client.chat.completions.create(model="prod", messages=m, max_tokens=8) for m in (plain, parts)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].usage == answers[1].usage


def test_each_request_leaves_a_trace_without_content(live: Live) -> None:
    live.traces.clear()
    answer = live.client().chat.completions.create(model="coder", messages=USER, user="me")
    trace = live.traces[0]
    assert trace["id"] == answer.id and trace["status"] == 200 and trace["finish"] == "stop"
    assert trace["prompt_tokens"] == answer.usage.prompt_tokens and trace["seconds"] > 0
    assert trace["confidence"] == answer.choices[0].model_extra["tunesmith"]["confidence"]
    assert "messages" not in trace and "answer" not in trace and "me" not in trace.values()
