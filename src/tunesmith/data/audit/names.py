"""Made-up people: given names of any gender, and family names that no register knows, so that a reader and a later
audit can tell them from real ones. 32 x 64 pseudonyms."""

from __future__ import annotations

from tunesmith.data.audit.reading import word_set

GIVEN_NAMES = tuple(
    sorted(
        word_set(
            "Alex Andrea Ariel Ash Billie Blair Cameron Casey Charlie Chris Dana Drew Eden Ellis Finley Frankie "
            "Harper Jamie Jesse Jordan Jules Kim Lee Logan Morgan Noel Parker Quinn Robin Sasha Sidney Taylor"
        )
    )
)
FAMILY_NAMES = tuple(
    first + second
    for first in ("Ash", "Brim", "Cold", "Dun", "Elm", "Fair", "Glen", "Hazel")
    for second in ("quill", "fathom", "wick", "mere", "thorpe", "lark", "veil", "marrow")
)
