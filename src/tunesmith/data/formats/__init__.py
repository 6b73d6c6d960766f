"""In: one file of a format. Out: its records, streaming, each with its line or number, and what could not be read.

Every reader is `read(path, facts) -> Iterator[Record | BadRecord]`. Read known.py first: which format a file has.
"""
