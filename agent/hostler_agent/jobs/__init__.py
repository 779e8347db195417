"""Jobs: supervised process trees, one for each command.

A job is planned (`plan`, pure), kept in an enclosure of the machine's containment (chosen in
`containment`; `posix/` and `windows/` implement it), run (`run`), and closed by a kill receipt
(`receipt`).
"""

from hostler_agent.jobs.containment import Containment, choose_containment

__all__ = ["Containment", "choose_containment"]
