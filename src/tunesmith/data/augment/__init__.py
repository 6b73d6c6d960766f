"""More, and better balanced, training rows: noise, paraphrases, class weights; validation and test are never touched.

In: a `dataset`. Out: a `dataset` whose training rows are joined by marked copies. Read augment.py first.
"""
