"""Drivers start, inspect, stop and list instances. `contract` defines the interface of a driver."""
