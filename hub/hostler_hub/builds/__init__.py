"""What happens to a build: accepted, run on leased workers, attempt by attempt; logs and files."""
