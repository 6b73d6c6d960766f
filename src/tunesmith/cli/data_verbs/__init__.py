"""The verbs of `tunesmith data`, one a file.

In come arguments; out goes one call of a method of `project.data`, its answer on stdout. The list of them is in
cli/verbs/data.py; each file is imported when its verb is used.
"""
