"""Which weights are trained: one file a method, behind one seam.

In comes a base model and a MethodSpec; out goes a model with some weights trainable, and later a
checkpoint's files. Read spec.py (no torch) first, then catalog.py.
"""

import logging

# PEFT imports bitsandbytes wherever it is installed, which then reports, on standard error, kernels it would load
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
