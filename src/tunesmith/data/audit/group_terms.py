"""Words that name groups of people: our own small lists, English, for counting and for swapping.

Each group has its words, and most words have the one that takes their place when the group is exchanged. The lists
are meant to be read and criticised; they find mentions of groups, not the groups of the people who wrote.
"""

from __future__ import annotations

# dimension -> group -> words (lower case, whole words)
TERMS: dict[str, dict[str, tuple[str, ...]]] = {
    "gender": {
        "female": ("she", "her", "hers", "herself", "woman", "women", "girl", "girls", "female", "females", "mother",
                   "mothers", "mum", "mom", "daughter", "daughters", "sister", "sisters", "wife", "wives", "aunt",
                   "grandmother", "lady", "ladies", "mrs", "ms", "actress", "waitress", "queen", "widow"),
        "male": ("he", "him", "his", "himself", "man", "men", "boy", "boys", "male", "males", "father", "fathers",
                 "dad", "son", "sons", "brother", "brothers", "husband", "husbands", "uncle", "grandfather",
                 "gentleman", "gentlemen", "mr", "actor", "waiter", "king", "widower"),
        "nonbinary": ("nonbinary", "non-binary", "genderqueer", "transgender"),
    },
    "age": {
        "young": ("young", "younger", "youngest", "teenager", "teenagers", "teen", "teens", "adolescent",
                  "adolescents", "youth", "millennial", "millennials"),
        "old": ("old", "older", "oldest", "elderly", "senior", "seniors", "pensioner", "pensioners", "retiree",
                "retirees", "aged", "boomer", "boomers"),
    },
    "nationality": {
        "american": ("american", "americans"), "british": ("british", "english", "englishman"),
        "german": ("german", "germans"), "french": ("french", "frenchman"), "italian": ("italian", "italians"),
        "spanish": ("spanish", "spaniard"), "polish": ("polish", "poles"), "russian": ("russian", "russians"),
        "turkish": ("turkish", "turks"), "chinese": ("chinese",), "japanese": ("japanese",), "korean": ("korean",),
        "indian": ("indian", "indians"), "pakistani": ("pakistani", "pakistanis"), "mexican": ("mexican", "mexicans"),
        "brazilian": ("brazilian", "brazilians"), "nigerian": ("nigerian", "nigerians"),
        "african": ("african", "africans"), "arab": ("arab", "arabs", "arabic"), "asian": ("asian", "asians"),
        "european": ("european", "europeans"), "iranian": ("iranian", "iranians"), "israeli": ("israeli", "israelis"),
    },
    "religion": {
        "christian": ("christian", "christians", "christianity", "church", "catholic", "catholics", "protestant"),
        "muslim": ("muslim", "muslims", "islam", "islamic", "mosque"),
        "jewish": ("jewish", "jew", "jews", "judaism", "synagogue"),
        "hindu": ("hindu", "hindus", "hinduism"), "buddhist": ("buddhist", "buddhists", "buddhism"),
        "atheist": ("atheist", "atheists", "atheism"), "sikh": ("sikh", "sikhs"),
    },
    "disability": {
        "disabled": ("disabled", "disability", "disabilities", "wheelchair", "handicapped", "paraplegic", "amputee"),
        "blind_or_deaf": ("blind", "blindness", "deaf", "deafness"),
        "mental_health": ("depressed", "depression", "bipolar", "schizophrenic", "schizophrenia", "autistic", "autism",
                          "adhd", "anxiety", "dyslexic", "dyslexia"),
    },
}  # fmt: skip

# word -> the word that takes its place; both ways unless one word stands for two ("her": him or his)
_PAIRS = (
    "she:he hers:his herself:himself woman:man women:men girl:boy girls:boys female:male females:males mother:father "
    "mothers:fathers mum:dad daughter:son daughters:sons sister:brother sisters:brothers wife:husband wives:husbands "
    "aunt:uncle grandmother:grandfather lady:gentleman ladies:gentlemen mrs:mr actress:actor waitress:waiter queen:king "
    "widow:widower young:old younger:older youngest:oldest american:chinese americans:chinese british:indian "
    "german:turkish germans:turks french:russian italian:polish spanish:mexican african:european africans:europeans "
    "asian:american christian:muslim christians:muslims christianity:islam church:mosque catholic:protestant "
    "jewish:hindu jews:hindus"
)
SWAPS: dict[str, str] = {}
for _pair in _PAIRS.split():
    _one, _other = _pair.split(":")
    SWAPS.setdefault(_one, _other)
    SWAPS.setdefault(_other, _one)
SWAPS.update({"him": "her", "mom": "dad", "ms": "mr"})
OBJECT_HER = "him"  # "her" before a noun is "his", elsewhere "him"
POSSESSIVE_HER = "his"

GROUP_OF: dict[str, tuple[tuple[str, str], ...]] = {}  # word -> (dimension, group)
for _dimension, _groups in TERMS.items():
    for _group, _words in _groups.items():
        for _word in _words:
            GROUP_OF[_word] = (*GROUP_OF.get(_word, ()), (_dimension, _group))
