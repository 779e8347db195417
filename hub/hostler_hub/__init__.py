"""The hub: the one controller process (registry, states, queue, leases, REST)."""

__version__ = "0.1.0"
