"""The agent's side of its connection to the hub: dialling, sessions, lease, outbox."""
