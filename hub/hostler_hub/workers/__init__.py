"""What happens to a worker: registry, definitions, controller, leases, incidents."""
