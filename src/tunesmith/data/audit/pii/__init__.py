"""A text goes in, spans of personal data come out; one family a file, each a function `find(text, ...)`.
A pattern proposes, a checksum, a numbering plan or a context word decides, and the score says how sure that makes us.
Read `digits.py` first: most families start from its runs of digits.
"""
