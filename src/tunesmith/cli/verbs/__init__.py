"""One module a verb, each with a click command of the same name; app.py lists them."""
