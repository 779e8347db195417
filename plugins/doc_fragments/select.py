# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  select:
    description:
      - The workers by what they are, instead of by their names. All conditions must hold; of a list of alternatives one
        must.
      - The hub chooses when it takes the order, all in one request.
    type: dict
    suboptions:
      all:
        description: Every worker. Without it at least one condition is needed.
        type: bool
        default: false
      driver:
        description: One of these drivers.
        type: list
        elements: str
      group:
        description: One of these groups.
        type: list
        elements: str
      labels:
        description: All of these labels.
        type: list
        elements: str
      state:
        description: The instance is in one of these states.
        type: list
        elements: str
        choices: [latent, substantiating, substantiated, insubstantiating]
      mode:
        description: One of these modes.
        type: list
        elements: str
        choices: [active, paused, draining, stopped]
      missing:
        description: Whether it is missing.
        type: bool
      quarantined:
        description: Whether it is in quarantine.
        type: bool
      properties:
        description: All of these properties, with just these values.
        type: dict
"""
