"""What a project's training will cost, said before it, and compared with what happened after it.

In come a project's settings, its ledger and its prepared data; out come forecasts noted under a run's key, and the same
training on other machines. Read forecast.py first; what is counted and how is in train/cost.
"""
