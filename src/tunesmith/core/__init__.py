"""The vocabulary: nouns, canonical JSON and content ids, errors, the project file, what a stage is.

In comes `tunesmith.yaml`; out go frozen values with ids that every other room speaks. Nothing here
knows torch, SQLite or HTTP. Read nouns.py first.
"""
