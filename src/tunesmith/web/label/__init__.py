"""The labelling page: a review room in a browser, by keyboard or thumb.

In: a review room (review/room.py), given by whoever starts the server. Out: pages, and judgments in the
room. Read app.py first, then label.js.
"""
