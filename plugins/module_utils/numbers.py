# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers from a playbook as the hub shows them."""

from __future__ import annotations


def plain(value):
    """60.0 as 60: Ansible's float options turn whole seconds into floats, which read badly."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
