"""Connections of agents: admission and its refusals, service to the end, heartbeats."""
