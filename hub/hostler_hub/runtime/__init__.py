"""The process: settings, clock, log, secrets, certificates, ids, shutdown, background tasks."""
