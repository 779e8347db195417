"""The hub's REST API, version 1: routers that parse, authorise, call one function and serialise.

`application.create` makes the ASGI application; `security` declares who may call what; `problems`
renders every refusal; `ports` names what the routers need of the rest of the hub.
"""
