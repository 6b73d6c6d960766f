"""Is there enough data, and is it the right data? A learning curve with its forecast, and a comparison with real inputs.

In: a `dataset`, and a sample of real inputs for the comparison. Out: facts, with the series for a chart. Read
curve.py first, then compare.py.
"""
