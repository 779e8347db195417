"""Builds: accepts them, runs them attempt by attempt on leased workers, keeps logs and files."""
