"""The listener: accepts connections, limits them, and gives each its HTTP or WebSocket protocol."""
