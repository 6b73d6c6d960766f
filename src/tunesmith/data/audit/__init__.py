"""Examples in; out come the same examples with every risk found in them written down next to its row, and where a
policy says so, personal data and secrets redacted, replaced by pseudonyms, or their rows left out with the reason.
Read `stages.py` for what can be asked, `audit.py` for the order of the work, and `catalogue.py` for what is looked
for; `look.py` has the same checks as plain functions over texts.
"""
