"""Drivers start, inspect, stop and list instances; `contract` is what each of them keeps."""
