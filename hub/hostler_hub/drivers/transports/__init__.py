"""Transports carry commands and files to a machine and back. They know nothing of agents or
instances.
"""
