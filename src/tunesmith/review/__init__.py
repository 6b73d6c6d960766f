"""People's judgments of every kind: what is asked next, of whom, and what several answers add up to.

In: items and the judgments made so far. Out: the next item, agreement, consensus. Read queues.py first.
"""
