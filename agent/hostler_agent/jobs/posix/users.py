"""The users that builds run as, where the agent may change user."""

from __future__ import annotations

from hostler_agent.jobs.plan import BuildUser

__all__ = ["BuildUser"]
