"""What happened, kept for good: files by hash, runs and what they read and wrote, names and notes.

In come folders of files and stages to execute; out come artifacts and runs by id, each result made
once. Read ledger.py first, then execute.py.
"""
