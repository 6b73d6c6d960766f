"""A data set in the shapes that other tools read.

In: a `dataset` folder. Out: a folder of files, and rows that the shape cannot hold listed, not bent.
Read catalog.py first.
"""
