"""Agents that are attached: admission, sessions, heartbeat, examination of their machines."""
