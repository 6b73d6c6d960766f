"""Where work executes: this process, a worker process, or several ranks under torchrun.

A stage, its spec, its folders and a workspace come in; the stage's outputs go out, whoever made them, and the same
errors. Read perform.py first (the parent's side), then worker.py (the rank's side) and lifeline.py (what joins them).
"""
