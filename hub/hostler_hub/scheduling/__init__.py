"""Scheduling: assigns builds to workers, decides which instances run, explains why builds wait."""
