"""Training: a data set and a base model become a checkpoint, resumable to the byte.

In come a data set's rows and a model folder (stages.py); out go the best adapter or weights with their
renderer, and a metric log. Read recipes/sft.py first, then learner.py, batches.py, forward.py, optim.py and state.py.
"""
