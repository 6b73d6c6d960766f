"""What every server of ours shares: the one door through which each request comes.

In: ASGI requests. Out: refusals, or requests that a route may trust. Read gatekeeper.py first.
"""
