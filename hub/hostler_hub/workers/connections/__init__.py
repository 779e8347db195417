"""Connections of agents: who may attach, what is served while it lasts, and how it ends."""
