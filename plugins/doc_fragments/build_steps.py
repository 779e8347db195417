# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  steps:
    description:
      - What is done, in order. Required for O(state=present).
      - Each step is of one kind. Paths are the worker's, absolute or within the build's own workspace.
    type: list
    elements: dict
    suboptions:
      name:
        description: What the step is called.
        type: str
        required: true
      command:
        description: Run a program. A list of arguments, or a string for the worker's shell.
        type: raw
      mkdir:
        description: Make directories, and those above them.
        type: list
        elements: str
      rmdir:
        description: Remove directories with all that is in them.
        type: list
        elements: str
      copy:
        description: Copy a directory or file of the worker to a place where nothing is yet.
        type: dict
        suboptions:
          from:
            description: What is copied.
            type: str
            required: true
          to:
            description: Where to.
            type: str
            required: true
      remove:
        description: Remove a file.
        type: str
      stat:
        description: Look at a file. The step's C(result) has the ten numbers of a POSIX stat as C(stat).
        type: str
      glob:
        description: Find files by a shell's pattern, where C(**) stands for any depth. The step's C(result) has C(files).
        type: str
      listdir:
        description: List a directory. The step's C(result) has C(files).
        type: str
      upload:
        description: Make an artifact of a file.
        type: dict
        suboptions:
          from:
            description: The file.
            type: str
            required: true
          name:
            description: The artifact's path. By default the last part of O(steps[].upload.from).
            type: str
          keep_stamp:
            description: Whether to keep the time of its last change. The hub's default is V(false).
            type: bool
          max_size_bytes:
            description: A larger file fails the step. The hub's default, and most, is 1 GiB.
            type: int
      upload_directory:
        description: Make artifacts of all files in a directory, which must hold no links.
        type: dict
        suboptions:
          from:
            description: The directory.
            type: str
            required: true
          name:
            description: The artifacts' folder. By default the last part of O(steps[].upload_directory.from).
            type: str
          compress:
            description: How it is packed on its way.
            type: str
            choices: [gz, bz2]
      upload_glob:
        description:
          - Make artifacts of the files and directories that match; none is a failure.
          - They are named from the pattern's first part with a wildcard on.
        type: dict
        suboptions:
          pattern:
            description: A shell's pattern, where C(**) stands for any depth.
            type: str
            required: true
          name:
            description: The artifacts' folder.
            type: str
      download:
        description: Give the worker a file, by exactly one of its text, a file here, or the hash of one that is stored.
        type: dict
        suboptions:
          to:
            description: Where to.
            type: str
            required: true
          content:
            description: The text. Set C(no_log) on the task when it is a secret.
            type: str
          src:
            description: A file on the machine where the module runs, which it stores on the hub.
            type: path
          file:
            description: The sha256 of a file that is stored on the hub.
            type: str
          mode:
            description: Its permissions, as octal digits in a string such as C("0755").
            type: raw
      set_property:
        description:
          - Run a program whose standard output becomes a property of the build.
          - O(steps[].workdir), O(steps[].env) and the like hold for it, too.
        type: dict
        suboptions:
          command:
            description: A list of arguments, or a string for the worker's shell.
            type: raw
            required: true
          name:
            description: The property.
            type: str
          lines:
            description: Instead of O(steps[].set_property.name), each line C(NAME=VALUE) of the output is a property.
            type: bool
          strip:
            description: Whether to take away the space around values. The hub's default is V(true).
            type: bool
      workdir:
        description: Where it runs, absolute or within the build's own workspace.
        type: str
      env:
        description: Variables of this step over those of the build. A null takes a variable away.
        type: dict
      secrets:
        description:
          - Secrets for this step over those of the build, in the form of O(secrets).
          - A stock Buildbot worker gets none, and its build ends with that as the reason.
        type: dict
      use_pty:
        description: Whether the program gets a terminal. The hub's default is V(false).
        type: bool
      initial_stdin:
        description: What the program reads. Set C(no_log) on the task when it is a secret.
        type: str
      logfiles:
        description:
          - Files that the program writes, for the step's log, by name.
          - Each is a dictionary of C(filename), relative to O(steps[].workdir), and C(follow), which skips what it held before.
        type: dict
      log_environment:
        description: Whether the log begins with the environment. The hub's default is V(false).
        type: bool
      limits:
        description:
          - What all processes of the program may use together, over O(limits) of the build, one by one.
          - An agent that cannot enforce one of them, and a stock Buildbot worker, does not start the program.
        type: dict
        suboptions:
          memory_mb:
            description: Memory in MiB, at least 16. Who takes more is ended by the kernel, and the result says so.
            type: int
          processes:
            description: How many processes and threads there may be at once.
            type: int
          cpu_percent:
            description: Processor time, in percent of all the worker's processors.
            type: int
      batch_files:
        description:
          - Whether a list as C(command) may name a C(.bat) or C(.cmd) file on Windows, whose arguments C(cmd.exe) reads once more.
          - The hub's default is V(false). A stock Buildbot worker starts them in any case.
        type: bool
      timeout_s:
        description: Seconds without output, or without progress of a transfer, after which the step is ended; 0 for never. The hub's default is 1200.
        type: float
      max_time_s:
        description: Seconds after which the step is ended.
        type: float
      max_lines:
        description: Lines of output after which the step is ended.
        type: int
      sigterm_time_s:
        description: Seconds between the polite and the certain signal; 0 for the certain one at once. The hub's default is 10.
        type: float
      halt_on_failure:
        description: Whether a failure ends the build. The hub's default is V(true).
        type: bool
      always_run:
        description: Whether the step runs even after a failure. The hub's default is V(false).
        type: bool
"""
