"""A room: who is asked what, blind, what is kept, and that it all comes back from the journal."""

from __future__ import annotations

import random
import secrets
import threading
from typing import Any

import pytest

from tests.review.rooms import LABELS, Clock, Memory, asked, pairs, room, rules, say, texts
from tunesmith.core.errors import InputError, StorageError
from tunesmith.metrics.agreement import Ratings, krippendorff_alpha, percent_agreement
from tunesmith.review.items import Item
from tunesmith.review.queues import Queue
from tunesmith.review.room import Room


def finish(room: Room, person: str, choose: Any, most: int = 1000) -> int:
    """Label until nothing is left for this person."""
    for n in range(most):
        items = asked(room, person)
        if not items:
            return n
        say(room, person, "label", items[0], choose(items[0]))
    return most


def test_the_order_is_random_by_seed_uncertain_first_or_as_listed() -> None:
    def order(**changes: Any) -> list[str]:
        return [i.id for i in Queue(rules(**changes), texts(50)).items]

    listed = [f"item{i:03d}" for i in range(50)]
    assert order(order="listed") == listed
    assert order(order="uncertainty") == listed[::-1]
    assert order(order="random", seed=1) == order(order="random", seed=1) != order(order="random", seed=2) != listed
    unknown = [*texts(3), Item(id="unknown", kind="label", text="x")]
    assert Queue(rules(order="uncertainty"), unknown).items[-1].id == "unknown"


def test_new_items_leave_the_order_and_the_shared_ones_as_they_were() -> None:
    few, many = Queue(rules(overlap=0.3), texts(50)), Queue(rules(overlap=0.3), texts(200))
    kept = {i.id for i in few.items}
    assert [i.id for i in many.items if i.id in kept] == [i.id for i in few.items]
    wanted = {i.id: many.turns.wanted(n) for n, i in enumerate(many.items)}
    assert all(wanted[i.id] == few.turns.wanted(n) for n, i in enumerate(few.items))
    assert 40 <= many.shared <= 80


def test_two_people_at_once_never_get_the_same_single_item() -> None:
    room_ = room(20)
    rng, seen = random.Random(1), []
    while items := (
        asked(room_, who := rng.choice(["ann", "ben"])) or asked(room_, who := {"ann": "ben", "ben": "ann"}[who])
    ):
        assert not set(asked(room_, "ann")) & set(asked(room_, "ben"))
        say(room_, who, "label", items[0], "sports")
        seen.append(items[0])
    assert sorted(seen) == sorted(i.id for i in texts(20))


def test_shared_items_go_to_several_people_and_nobody_sees_the_others_labels() -> None:
    room_ = room(8, overlap=1.0)
    assert finish(room_, "ann", lambda i: "sports") == 8
    for item in room_.ask("ben", "labels")["items"]:
        assert "sports" not in str(item) and "ann" not in str(item) and "votes" not in item
    assert room_.ask_disputes("ben", "labels")["items"] == []  # nothing shows before the second verdict
    assert finish(room_, "ben", lambda i: "sports") == 8
    assert finish(room_, "cy", lambda i: "sports") == 0
    progress = room_.ask("ann", "labels")["progress"]
    assert (progress["finished"], progress["given"], progress["wanted"]) == (8, 16, 16)
    assert progress["agreement"] == {"items": 8, "percent": 1.0, "alpha": None}


def test_a_disagreement_is_adjudicated_and_can_be_reopened() -> None:
    room_ = room(3, overlap=1.0, order="listed")
    finish(room_, "ann", lambda i: "sports")
    finish(room_, "ben", lambda i: "science" if i == "item001" else "sports")
    asked_ = room_.ask_disputes("owner", "labels")
    assert [i["id"] for i in asked_["items"]] == ["item001"] and asked_["progress"]["disputes"] == 1
    assert [(v["annotator"], v["value"]) for v in asked_["items"][0]["votes"]] == [
        ("ann", "sports"),
        ("ben", "science"),
    ]
    with pytest.raises(InputError, match="nobody disagrees"):
        say(room_, "owner", "adjudicate", "item000", "sports")
    ruling = say(room_, "owner", "adjudicate", "item001", "politics")
    assert room_.ask_disputes("owner", "labels")["items"] == []
    last = room_.recent("ben", "labels", 3)[1]
    assert last["item"] == "item001"
    with pytest.raises(InputError, match="adjudicated this item since"):
        say(room_, "ben", "undo", "item001", last["id"])
    say(room_, "owner", "undo", "item001", ruling["id"])
    assert len(room_.ask_disputes("owner", "labels")["items"]) == 1
    say(room_, "ben", "undo", "item001", last["id"])
    assert room_.ask_disputes("owner", "labels")["items"] == []
    say(room_, "ben", "label", "item001", "sports")
    assert room_.ask("ben", "labels")["progress"]["agreement"]["percent"] == 1.0


def test_two_who_adjudicate_get_different_disputes_and_one_may_be_put_off() -> None:
    room_ = room(4, overlap=1.0, order="listed")
    finish(room_, "ann", lambda i: "sports")
    finish(room_, "ben", lambda i: "science")
    first = [i["id"] for i in room_.ask_disputes("olga", "labels")["items"]]
    assert first == ["item000", "item001", "item002"]
    assert [i["id"] for i in room_.ask_disputes("otto", "labels")["items"]] == ["item003"]
    said = room_.overview()["queues"][0]["measures"]["reliability"]
    assert said["ann"]["accuracy"]["value"] == 0.0 and said["ann"]["compared"] == 4
    say(room_, "olga", "adjudicate", "item002", "sports")
    said = room_.overview()["queues"][0]["measures"]["reliability"]
    assert said["ann"]["accuracy"]["value"] == 0.25 and said["ben"]["accuracy"]["value"] == 0.0
    ruling = room_.recent("olga", "labels", 1)[0]
    say(room_, "olga", "undo", "item002", ruling["id"])
    room_.put_off("olga", "labels", "item000")
    assert [i["id"] for i in room_.ask_disputes("olga", "labels")["items"]] == ["item001", "item002", "item000"]


def test_skips_need_a_reason_and_give_the_item_to_the_others() -> None:
    room_ = room(3, order="listed")
    with pytest.raises(InputError, match="needs a reason"):
        say(room_, "ann", "skip", "item000")
    say(room_, "ann", "skip", "item000", reason="not my language")
    assert asked(room_, "ann") == ["item001", "item002"]
    assert asked(room_, "ben") == ["item000"]
    queue = room_.overview()["queues"][0]
    assert queue["set_aside"] == 1 and queue["skipped"] == [
        {"text": "text number 0", "reasons": {"ann": "not my language"}}
    ]
    undo = room_.ask("ann", "labels")["progress"]["undo"]
    say(room_, "ann", "undo", "item000", undo["id"])
    assert asked(room_, "ann")[0] == "item000"


def test_undo_takes_back_step_by_step_and_only_ones_own() -> None:
    room_ = room(5, order="listed")
    first = say(room_, "ann", "label", "item000", "sports")
    second = say(room_, "ann", "label", "item001", "sports")
    with pytest.raises(InputError, match="nothing of yours"):
        say(room_, "ben", "undo", "item000", first["id"])
    for judgment in (second, first):
        assert room_.ask("ann", "labels")["progress"]["undo"]["id"] == judgment["id"]
        say(room_, "ann", "undo", judgment["item"], judgment["id"])
        assert asked(room_, "ann")[0] == judgment["item"]
    assert room_.ask("ann", "labels")["progress"]["undo"] is None
    with pytest.raises(InputError, match="nothing of yours"):
        say(room_, "ann", "undo", "item000", first["id"])


def test_sending_again_is_acknowledged_and_counted_once() -> None:
    journal = Memory()
    room_ = room(3, journal=journal)
    draft = {"id": "abcdefgh", "queue": "labels", "item": "item000", "verb": "label", "value": "sports", "seconds": 2.0}
    assert room_.judge("ann", draft) == room_.judge("ann", draft | {"seconds": 9.0})
    assert len(journal.kept) == 1 and room_.ask("ann", "labels")["progress"]["given"] == 1
    for changed in (draft | {"value": "science"}, draft | {"item": "item001"}):
        with pytest.raises(InputError, match="another judgment has that id"):
            room_.judge("ann", changed)
    with pytest.raises(InputError, match="another judgment has that id"):
        room_.judge("ben", draft)
    with pytest.raises(InputError, match="judged this item already"):
        room_.judge("ann", draft | {"id": "ijklmnop"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verb": "label", "value": "weather"}, "not one of the queue's"),
        ({"verb": "label", "value": None}, "not one of the queue's"),
        ({"verb": "approve", "value": None}, "no meaning in a queue of labels"),
        ({"verb": "adjudicate", "value": "sports"}, "nobody disagrees"),
        ({"verb": "undo", "value": 3}, "names the judgment"),
        ({"item": "nothing"}, "no such item"),
        ({"queue": "nothing"}, "no such queue"),
        ({"id": "a b c d e f"}, "its id is not"),
        ({"id": "short"}, "its id is not"),
        ({"seconds": -1.0}, "not between 0"),
        ({"seconds": "soon"}, "this is no judgment"),
        ({"verb": "dance"}, "this is no judgment"),
        ({"reason": "x" * 2001}, "longer than"),
    ],
)
def test_judgments_without_meaning_are_refused_and_not_kept(changes: dict[str, Any], message: str) -> None:
    journal = Memory()
    draft = {"id": "abcdefgh", "queue": "labels", "item": "item000", "verb": "label", "value": "sports"}
    with pytest.raises(InputError, match=message):
        room(3, journal=journal).judge("ann", draft | changes)
    assert journal.kept == []


@pytest.mark.parametrize(
    ("verb", "value", "message"),
    [
        ("correct", None, "has a prompt and a completion"),
        ("correct", {"prompt": "a", "completion": " "}, "the corrected completion is empty"),
        ("correct", {"prompt": "a", "completion": "b", "more": "c"}, "has a prompt and a completion"),
        ("approve", "yes", "takes no value"),
        ("label", "sports", "no meaning in a queue of pairs"),
        ("adjudicate", {"verb": "label"}, "a ruling on a pair"),
        ("correct", "approve", "has a prompt and a completion"),
    ],
)
def test_pairs_take_their_own_verbs(verb: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        say(room(), "ann", verb, "pair000", value, queue="pairs")


def test_pairs_are_approved_rejected_and_corrected() -> None:
    room_ = room()
    items = asked(room_, "ann", "pairs")
    say(room_, "ann", "approve", items[0], queue="pairs")
    say(room_, "ann", "reject", items[1], queue="pairs", reason="not in the passage")
    say(room_, "ann", "correct", items[2], {"prompt": "What?", "completion": "That."}, queue="pairs")
    people = room_.overview()["queues"][1]["people"]
    assert people["ann"]["verbs"] == {"approve": 1, "correct": 1, "reject": 1}


def test_a_judgment_that_comes_after_its_lease_is_kept_all_the_same() -> None:
    clock = Clock()
    room_ = room(1, clock=clock)
    assert asked(room_, "ann") == ["item000"]
    clock.now = 1000
    assert asked(room_, "ben") == ["item000"]
    say(room_, "ben", "label", "item000", "sports")
    say(room_, "ann", "label", "item000", "science")  # both count; the disagreement shows
    progress = room_.ask("ann", "labels")["progress"]
    assert progress["given"] == progress["wanted"] == 1 and progress["disputes"] == 1


def test_what_the_disk_refuses_does_not_count() -> None:
    class Full(Memory):
        def append(self, judgment: Any) -> Any:
            raise StorageError("the disk is full")

    room_ = room(2, journal=Full())
    before = asked(room_, "ann")
    with pytest.raises(StorageError):
        say(room_, "ann", "label", before[0], "sports")
    assert asked(room_, "ann") == before and room_.ask("ann", "labels")["progress"]["given"] == 0


def test_a_room_opened_again_is_as_it_was() -> None:
    """After any mixture of verbs: the same progress, disputes and undo for everybody."""
    rng, journal = random.Random(7), Memory()
    first = room(40, journal=journal, overlap=0.5)
    for _ in range(200):
        who = rng.choice(["ann", "ben", "cy"])
        items, undo = asked(first, who), first.ask(who, "labels")["progress"]["undo"]
        if rng.random() < 0.15 and undo:
            mine = first.recent(who, "labels", 1)[0]
            try:
                say(first, who, "undo", mine["item"], undo["id"])
            except InputError as e:
                assert "adjudicated" in str(e)
        elif rng.random() < 0.1 and items:
            say(first, who, "skip", items[0], reason="unclear")
        elif rng.random() < 0.2 and (disputes := first.ask_disputes("olga", "labels")["items"]):
            say(first, "olga", "adjudicate", disputes[0]["id"], "sports")
        elif items:
            say(first, who, "label", items[0], rng.choice(LABELS))
    again = room(40, journal=journal, overlap=0.5)
    for who in ("ann", "ben", "cy", "olga"):
        a, b = first.ask(who, "labels")["progress"], again.ask(who, "labels")["progress"]
        assert {k: v for k, v in a.items() if k != "elsewhere"} == {k: v for k, v in b.items() if k != "elsewhere"}
        assert first.recent(who, "labels", 99) == again.recent(who, "labels", 99)
    assert {d["id"] for d in again.ask_disputes("x", "labels")["items"]} <= {i.id for i in texts(40)}
    assert again.overview()["queues"][0]["measures"] == first.overview()["queues"][0]["measures"]


def test_live_agreement_equals_the_measures_on_the_same_votes() -> None:
    rng, room_ = random.Random(3), room(60, overlap=0.7, annotators=3)
    for who in ("ann", "ben", "cy"):
        finish(room_, who, lambda i: rng.choice(LABELS), most=40)
    undo = room_.recent("ann", "labels", 1)[0]
    say(room_, "ann", "undo", undo["item"], undo["id"])
    live = room_.ask("ann", "labels")["progress"]["agreement"]
    ratings = Ratings.of_votes(room_._queues["labels"].votes())
    percent, alpha = (
        percent_agreement(ratings, resamples=100),
        krippendorff_alpha(ratings, scale="nominal", resamples=100),
    )
    assert percent and alpha and live["items"] == len(ratings.codes) > 20
    assert live["percent"] == pytest.approx(percent.value, abs=1e-12)
    assert live["alpha"] == pytest.approx(alpha.value, abs=1e-12)


def test_judgments_about_items_that_left_the_queue_are_counted_not_lost() -> None:
    journal = Memory()
    room_ = room(3, journal=journal)
    say(room_, "ann", "label", "item002", "sports")
    smaller = room(2, journal=journal)
    queue = smaller.overview()["queues"][0]
    assert queue["no_longer_asked"] == 1 and queue["progress"]["given"] == 0 and len(journal.kept) == 1


def test_personal_links_open_the_room_and_only_their_hash_is_kept() -> None:
    journal = Memory()
    room_ = room(journal=journal)
    ann, olga = room_.invite("ann"), room_.invite("olga", "owner")
    assert room_.person(ann).name == "ann" and room_.person(olga).role == "owner"  # type: ignore[union-attr]
    assert (
        room_.person("") is None and room_.person(ann + "x") is None and room_.person(secrets.token_urlsafe(32)) is None
    )
    assert ann not in str(journal.people) and len(ann) >= 43
    new = room_.invite("ann")
    assert room_.person(ann) is None and room_.person(new) is not None
    again = room(journal=journal)
    assert again.person(ann) is None and again.person(new).name == "ann"  # type: ignore[union-attr]
    for name in ("", " ann", "a" * 41, "a\nb"):
        with pytest.raises(InputError, match="visible characters"):
            room_.invite(name)


def test_a_suggestion_is_hidden_where_the_rules_say_so() -> None:
    items = [Item(id="a", kind="label", text="x", suggested="sports", confidence=0.9)]
    for suggest in (True, False):
        shown = Room("r", [Queue(rules(suggest=suggest), items)], Memory()).ask("ann", "labels")["items"][0]
        assert (shown["suggested"] == "sports") is suggest and (shown["confidence"] is not None) is suggest


def test_mistakes_in_the_rules_are_said() -> None:
    for changes, message in (
        ({"labels": ()}, "one label or more"),
        ({"labels": ("a", "a")}, "one label or more"),
        ({"overlap": 1.5}, "in \\[0, 1\\]"),
        ({"annotators": 0}, "between 1 and 255"),
        ({"lease_s": 0}, "above 0"),
    ):
        with pytest.raises(InputError, match=message):
            rules(**changes)
    with pytest.raises(InputError, match="1 ids are on several items"):
        Queue(rules(), [*texts(2), texts(1)[0]])


def test_intervals_of_many_votes_are_computed_beside_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.review.room.AT_ONCE", 10)
    room_ = room(20, overlap=1.0)
    for who in ("ann", "ben"):
        finish(room_, who, lambda i: "sports" if i < "item010" else "science")
    first = room_.overview()["queues"][0]
    assert first["progress"]["agreement"]["alpha"] == 1.0
    for thread in threading.enumerate():
        if thread.name == "agreement":
            thread.join(20)
    measures = room_.overview()["queues"][0]["measures"]
    assert measures["items_rated_twice"] == 20 and measures["measures"]["krippendorff"]["value"] == 1.0


def test_people_who_disagree_on_a_pair_are_ruled_on_and_equal_corrections_agree() -> None:
    queue = Queue(rules(name="pairs", kind="pair", labels=(), overlap=1.0, order="listed"), pairs(4))
    room_ = Room("r", [queue], Memory())
    fixed = {"prompt": "What?", "completion": "That."}
    for who, last in (("ann", fixed), ("ben", fixed | {"completion": "This."})):
        say(room_, who, "approve" if who == "ann" else "reject", "pair000", queue="pairs")
        say(room_, who, "correct", "pair001", fixed, queue="pairs")
        say(room_, who, "correct", "pair002", last, queue="pairs")
        say(room_, who, "approve", "pair003", queue="pairs")
    assert [d["id"] for d in room_.ask_disputes("olga", "pairs")["items"]] == ["pair000", "pair002"]
    say(room_, "olga", "adjudicate", "pair000", {"verb": "reject"}, queue="pairs")
    say(room_, "olga", "adjudicate", "pair002", {"verb": "correct", **fixed}, queue="pairs")
    assert room_.ask_disputes("olga", "pairs")["progress"]["disputes"] == 0
    said = room_.overview()["queues"][0]["measures"]["reliability"]
    assert said["ben"]["accuracy"]["value"] == 1.0 and said["ann"]["accuracy"]["value"] == 0.75  # ruled as ben said


def test_many_at_once_judge_every_item_once_and_every_resent_judgment_counts_once() -> None:
    journal = Memory()
    room_ = room(200, journal=journal, overlap=0.3)
    failures: list[BaseException] = []

    def work(who: str) -> None:
        try:
            while items := asked(room_, who):
                draft = {
                    "id": f"{who}-{items[0]}",
                    "queue": "labels",
                    "item": items[0],
                    "verb": "label",
                    "value": "sports",
                }
                for _ in range(2):  # the second is the same judgment sent again
                    room_.judge(who, draft)
        except BaseException as e:
            failures.append(e)
            raise

    threads = [threading.Thread(target=work, args=(who,)) for who in ("ann", "ben", "cy", "dora")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    progress = room_.ask("ann", "labels")["progress"]
    assert failures == [] and progress["finished"] == 200
    assert progress["given"] == progress["wanted"] == len(journal.kept) == len({j["id"] for j in journal.kept})
