"""Attached agents: their sessions, the facts they tell, the check of their machines."""
