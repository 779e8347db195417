# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers as hosts of an inventory: the words that a host's variables `hostler_...` may have.

The plugin hostler.fleet.workers writes them and the filter hostler.fleet.definitions reads them, so
that playbooks/provision.yml gives a live fleet back as it is.
"""

from __future__ import annotations

PREFIX = "hostler_"
# What a definition holds. A password is no part of what the hub tells.
DEFINED = (
    "driver",
    "driver_options",
    "properties",
    "default_properties",
    "labels",
    "max_builds",
    "max_uses",
    "max_uptime",
    "priority",
    "weight",
    "group",
    "build_wait_timeout",
    "missing_timeout",
    "notify_on_missing",
    "keepalive_interval",
    "check_instance_interval",
    "expects",
    "run_as",
    "build_groups",
    "no_new_privileges",
    "password_ref",
    "description",
)
# What the hub sees of a worker: no definition, and no mistake in one.
OBSERVED = (
    "mode",
    "mode_reason",
    "mode_by",
    "mode_until",
    "state",
    "attached",
    "instance",
    "epoch",
    "up_since",
    "uses",
    "retiring",
    "isolation",
    "admission",
    "quarantine",
    "missing",
    "incidents",
    "last_error",
    "builds",
    "lease",
    "facts",
)
# The observed facts with the defined properties over them: what builds are matched against.
EFFECTIVE = "effective_properties"
