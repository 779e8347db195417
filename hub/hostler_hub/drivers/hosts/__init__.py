"""Shared by the drivers of machines that exist already: they send requests to a machine through a
transport.
"""
