"""Rows in: texts that may say nearly the same thing. Out: which do, exactly: clusters, components, proofs that none do.
No probability decides: every pair at or above a threshold is found, and its similarity is counted, not estimated.
Read shingles.py for what is compared, join.py for how all pairs are found, dedup.py for the stage.
"""
