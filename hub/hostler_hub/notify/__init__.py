"""Telling people: an outbox in the store, and the channels that its messages go by."""
