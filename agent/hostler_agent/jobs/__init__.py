"""Jobs: supervised process trees, one for each command.

A job is planned (`plan`, pure), runs (`run`) in an enclosure, which holds its processes together,
and ends with a kill receipt (`receipt`). The machine's containment makes the enclosures:
`containment` chooses one of those that `posix/` and `windows/` implement.
"""

from hostler_agent.jobs.containment import Containment, choose_containment

__all__ = ["Containment", "choose_containment"]
