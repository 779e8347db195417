"""The agent's connection to the hub: dialling, sessions, the lease, the outbox."""
