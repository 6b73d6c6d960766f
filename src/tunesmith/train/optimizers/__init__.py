"""The optimizers by name.

In come named weights; out goes an Optimizer whose memory can be saved by name and put back to the bit.
Read catalog.py first.
"""
