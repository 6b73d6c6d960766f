"""Evaluation: what each approach reaches on the sealed test set, and whether that meets the goals.

In come a data set and the models that may answer it; out go answers of each arm, a report with
intervals and paired comparisons, and a verdict. Read stages.py first, then arms.py, report.py, gate.py.
"""
