"""What a training costs before it is run: weights, memory by part, time, energy and money, here and elsewhere.

In comes a base model's config.json, a Spec and the lengths of the examples; out come figures with their range.
Read skeleton.py first (the shapes everything is counted from), then memory.py; probe.py measures instead of counting.
"""
