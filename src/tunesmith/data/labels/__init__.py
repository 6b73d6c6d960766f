"""Labels one can defend: variants mapped as the user says, people's judgments applied, probable errors ranked.

In: an `examples` folder and, where people judged, a `judgments` snapshot. Out: `examples` with every changed label
on the record. Read label.py first.
"""
