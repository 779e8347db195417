"""Attached agents: their sessions, the facts they report, the check of their machines."""
