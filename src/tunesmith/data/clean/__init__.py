"""Texts cleaned by named, ordered, pure steps: characters, white space, HTML, mail, boilerplate, the user's patterns.
In: an `examples` folder and the names of the steps; out: the same rows with every change on the record.
Read catalogue.py for the steps there are, then clean.py.
"""
