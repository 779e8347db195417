"""The page: what the hub knows, in a browser. Templates and static files, no build step.

It has no knowledge of its own: each view calls the use cases that the REST API calls.
"""
