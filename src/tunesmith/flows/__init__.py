"""What joins stages: plan first, then execute, each step memoised by the ledger.

In come a project's settings and its ledger; out come runs, a plan, a verdict and the facts of a report.
Read steps.py (the journey as a list), then run.py.
"""
