"""Metrics: numbers equal to their reference libraries, and how sure one can be of them.

In come target and answer texts with the group of each item; out go scores, intervals, paired tests and
what a test set of a given size can prove. Read catalog.py first, then statistics.py.
"""
