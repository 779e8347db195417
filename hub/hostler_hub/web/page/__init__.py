"""The page: the hub's workers, builds and incidents in a browser. Templates and static files,
no build step.

It contains no logic of its own: each view calls the use cases that the REST API calls.
"""
