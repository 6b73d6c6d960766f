"""Raw files in: CSV, TSV and JSON lines, as people have them.
Out: examples, then a data set split by group with a sealed test set, and every row that is in neither with its reason.
Read check.py first, then prepare.py; read.py and shapes.py say what a row may look like.
"""
