"""Buildbot's MessagePack-over-WebSocket worker protocol without any I/O.

Bytes in, messages out: both the agent and the hub import this, and it imports neither sockets nor
clocks. `session` is the way in; `messages` are the operations, `codec` the frames, `limits` what
one end accepts of the other, `text` Buildbot's form of output, and `extension` what we add to it.
"""
