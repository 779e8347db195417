"""The shapes of the API's answers, for its OpenAPI document and the tests that hold answers to it.

Handlers answer with plain data (see `responses`); nothing here runs in a request. Instants are
ISO 8601 in UTC with Z; `_s` are seconds.
"""
