"""`tunesmith matrix`: every way to train, measured on the project's own rows, and one of them chosen.

In come a project's settings and its ledger; out come trained cells, the choice with its one look at the test set, and
the facts of a page. Read matrix.py first, then plan.py (which cells) and cell.py (what one of them does).
"""
