"""Models: found and verified, loaded, adapted, and asked.

In comes a model's name or folder and prompts; out go verified folders, models in memory with some
weights trainable, and Answers (a label with its exact probability, or generated text).
Read answer.py first, then catalog.py, safety.py, load.py and methods/.
"""
