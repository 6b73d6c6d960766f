"""Weights made of other weights: an adapter into its base, adapters with adapters, models with models.

In come checkpoints and model folders; out goes one folder that loads like any other, with the error that was made.
Read arithmetic.py (the papers' formulas on tensors) first, then adapters.py, models.py and merge.py.
"""
