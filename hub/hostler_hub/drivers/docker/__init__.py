"""Driver ``docker``: workers that are containers, on this machine's Docker daemon or a remote one.

Theory of operation. The driver makes sure that the daemon has the image (pulled or built). It
creates a container with the mark in its labels, copies the agent, its configuration and its token
into a volume that belongs to this container only, and starts the container. An agent reaches a hub
on the same machine through a Unix socket that is mounted into the container, so that it needs no
network, and any other hub at its public URL.

Containers and volumes are found again by exact labels, never by a prefix of a name. The container's
name contains worker, epoch and instance, so that the daemon itself refuses a second container of
one instance. Images inherit labels and pass them on, so ``copies`` tells an instance's own
container from what only carries its mark. A container counts as gone only when the daemon has said
so. Calls of the SDK block, so each runs in a thread of its own, under a deadline.
"""

from hostler_hub.drivers.docker.driver import DockerDriver

__all__ = ["DockerDriver"]
