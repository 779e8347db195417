"""Workers: their registry, definitions, controller, operators' leases and incidents."""
