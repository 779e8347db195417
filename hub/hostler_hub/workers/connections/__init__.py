"""Connections of agents: admission, refusals, rivals, service to the end, heartbeats."""
