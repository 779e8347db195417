"""Notifications: an outbox in the store, and the channels (mail, webhook) that deliver its
messages.
"""
