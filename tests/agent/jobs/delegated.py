"""An agent alone in a cgroup of version 2, as a service with Delegate=yes: where it ends up.

Run inside that cgroup by test_limits; prints what became of the controllers' delegation.
"""

import os
import sys
from pathlib import Path

from hostler_agent.jobs.posix import cgroup, mounts

home = Path(sys.argv[1])
with open(home / "cgroup.procs", "w") as procs:
    procs.write("0")
# Of what this hierarchy can hand down, whatever it is.
cgroup.CONTROLLERS = tuple((home / "cgroup.controllers").read_text().split())
containment = cgroup.CgroupContainment("cgroup2", "delegated", (home,), {"cgroup2": home})
job = Path(containment.open("c1").paths[0])
print("agent", mounts.own_cgroups()["cgroup2"] == home / "agent")
print("home", containment.homes[0] == str(home / "agent"))
print("delegated", (job / "cgroup.controllers").read_text().split() == list(cgroup.CONTROLLERS))
print("job", job == home / "hostler" / "delegated" / "c1", os.path.exists(job))  # noqa: PTH110
