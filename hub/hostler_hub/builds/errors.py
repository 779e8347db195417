"""What ends a step of a build; each text is for the build's submitter.

Exception
├── StepFailed        the commands succeeded, their results are not what the step needs (the build)
├── TransferRefused   the hub refuses a file transfer with an agent (the agent, or the build)
├── BadArchive        an archive from an agent is damaged or has forbidden members (the agent)
├── SecretForbidden   the build's submitter may not use a secret here (the build)
└── CommandGone       the agent has lost the build's command: the attempt cannot go on (the worker)
"""

from __future__ import annotations


class StepFailed(Exception):
    """The commands succeeded, but their results are not what the step needs; the text says why."""


class TransferRefused(Exception):
    """The hub refuses a file transfer with an agent; the text says why, and the build shows it."""


class BadArchive(Exception):
    """The stream is not a tar archive, or has a forbidden member; the text says what and where."""


class SecretForbidden(Exception):
    """The submitter may not use a secret, or not on this worker; the text says who may grant it."""


class CommandGone(Exception):
    """The agent is attached, but has lost the build's command: the attempt cannot go on.

    ``survivors``: the processes of the command that could not be killed, each as "NAME (PID)".
    """

    def __init__(self, why: str, survivors: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.survivors = survivors
