"""Driver ``docker``: workers that are containers, on this machine's daemon or on another one's.

Theory of operation. The image is made sure of (pulled or built), a container is created with the
mark in its labels, the agent, its configuration and its token are put into a volume of the
container's own, and the container is started. The agent reaches a hub on the same machine by a
Unix socket that is mounted into the container, so that it needs no network, and any other hub by
its public URL.

Everything is found again by exact labels, never by a name's beginning; the name carries worker,
epoch and instance, so that the daemon itself refuses a second container of one instance. Gone is a
container only when the daemon has said so. Calls of the SDK block: each runs in a thread of its
own, under a deadline.
"""

from hostler_hub.drivers.docker.driver import DockerDriver

__all__ = ["DockerDriver"]
