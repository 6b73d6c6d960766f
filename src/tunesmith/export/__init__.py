"""What ships: a checkpoint becomes a bundle with its renderer, settings, card, verdict and manifest.

In come a checkpoint, its base, the data set, the report and the verdict; out goes one folder that
plain transformers and peft load and that `tunesmith serve` answers from. Read bundle.py first.
"""
