"""Command lines for Windows, where a program gets one string and splits it as it likes. Pure.

Three kinds of command, each with quoting of its own:

- A program gets its arguments as Microsoft's C runtime will split them again.
- A string is cmd.exe's business: `cmd.exe /d /s /c "<string>"`. With /s nothing but the outer pair
  of quotes is taken off; /d leaves AutoRun in the registry out.
- A batch file is run by cmd.exe, which reads the line before the batch file does: `%` and `"` in an
  argument would be executed (BatBadBut, CVE-2024-24576 and CVE-2024-43402). CreateProcess does that
  silently for any name that ends in .bat or .cmd, so batch files are run only when asked for, and
  then as Rust's standard library does: `"` doubled, and `%` followed by an expansion to nothing.
"""

from __future__ import annotations

import ntpath
import subprocess
from collections.abc import Iterator, Mapping
from typing import Callable, Optional

from hostler_agent.jobs.errors import PlanRefused

MAX_COMMAND_LINE = 32_767
"""CreateProcess's limit of a command line in UTF-16 units, the closing NUL included."""
MAX_SHELL_LINE = 8_191
"""The limit of a command line of cmd.exe, in characters."""
MAX_VARIABLE = 32_767
"""The limit of a variable as `NAME=value`, its NUL included."""

BATCH_EXTENSIONS = (".bat", ".cmd")
_RUNNABLE_EXTENSIONS = (".com", ".exe", *BATCH_EXTENSIONS)
_UNQUOTED = frozenset("#$*+-./:?@\\_")


def program_line(program: str, arguments: tuple[str, ...]) -> str:
    """The command line for a program that is not a batch file. Raises PlanRefused."""
    line = f'"{program}"'
    if arguments:
        # The first word is split by simpler rules than the others, but for them this is right.
        line += " " + subprocess.list2cmdline(arguments)
    return _checked("the command line", line, MAX_COMMAND_LINE - 1, "Windows")


def shell_line(shell: str, command: str) -> str:
    """The command line by which cmd.exe runs a string. Raises PlanRefused."""
    if "\n" in command or "\r" in command:
        raise PlanRefused(
            "the command has several lines, and cmd.exe would run the first and succeed; "
            "use several steps, or a batch file"
        )
    return _checked("the command", f'"{shell}" /d /s /c "{command}"', MAX_SHELL_LINE, "cmd.exe")


def batch_line(shell: str, script: str, arguments: tuple[str, ...]) -> str:
    """The command line for a batch file, which gets its arguments unchanged. Raises PlanRefused."""
    for index, argument in enumerate(arguments, 1):
        if "\n" in argument or "\r" in argument:
            raise PlanRefused(f"argument {index} of a batch file contains the end of a line")
    if "%" in script:
        raise PlanRefused("the name of a batch file contains a % sign")
    words = " ".join([f'"{script}"', *(_batch_argument(one) for one in arguments)])
    line = f'"{shell}" /e:on /v:off /d /s /c "{words}"'
    return _checked("the command", line, MAX_SHELL_LINE, "cmd.exe")


def _batch_argument(argument: str) -> str:
    quoted = not argument or argument.endswith("\\") or not all(map(_is_plain, argument))
    line, backslashes = "", 0
    for character in argument:
        if character == '"':
            line += "\\" * backslashes + '"'
        elif character == "%":
            line += "%%cd:~,"
        backslashes = backslashes + 1 if character == "\\" else 0
        line += character
    return f'"{line}{backslashes * chr(92)}"' if quoted else line


def _is_plain(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in _UNQUOTED
    return character.isprintable() and not character.isspace()


def environment_block(environment: Mapping[str, str]) -> str:
    """The environment as CreateProcess takes it: `NAME=value`, each with a NUL and one at the end,
    sorted as Windows requires.

    Raises PlanRefused for a variable that is too long, or two names that are the same to Windows.
    """
    entries: dict[str, str] = {}
    for name, value in environment.items():
        folded = name.upper()
        if folded in entries:
            raise PlanRefused(f"environment variable {name!r} is there twice; case does not count")
        entry = f"{name}={value}"
        what = f"environment variable {name!r}"
        entries[folded] = _checked(what, entry, MAX_VARIABLE - 1, "Windows")
    return "".join(entries[name] + "\0" for name in sorted(entries)) + "\0"


def find_program(
    program: str, workdir: str, environment: Mapping[str, str], is_file: Callable[[str], bool]
) -> Optional[str]:
    """The absolute path of the program that a name means in a job; None if there is no such file.

    Searches the PATH and PATHEXT of the job, as on other systems. CreateProcess would search the
    directories of the agent and of Windows first, and the current directory. Raises PlanRefused for
    a name whose meaning to Windows differs from its look.
    """
    _check_name(program)
    extensions = _extensions(program, environment)
    for directory in _directories(program, workdir, environment):
        for extension in extensions:
            path = ntpath.normpath(ntpath.join(directory, program + extension))
            if is_file(path):
                return path
    return None


def is_batch(path: str) -> bool:
    return path.lower().endswith(BATCH_EXTENSIONS)


def _check_name(program: str) -> None:
    if program != program.rstrip(". "):
        # x.bat. is x.bat to Windows, but not to whoever looks at the extension.
        raise PlanRefused("the program's name ends with a dot or a blank, which Windows ignores")
    if ":" in ntpath.splitdrive(program)[1]:
        raise PlanRefused("the program's name contains a colon, which Windows takes for a stream")
    if '"' in program:
        raise PlanRefused("the program's name contains a quotation mark")


def _extensions(program: str, environment: Mapping[str, str]) -> list[str]:
    if program.lower().endswith(_RUNNABLE_EXTENSIONS):
        return [""]
    wanted = [one.lower() for one in environment.get("PATHEXT", "").split(";")]
    known = [one for one in wanted if one in _RUNNABLE_EXTENSIONS]
    # python3.11 has an extension of its own, and means python3.11.exe.
    exact = [""] if ntpath.splitext(program)[1] else []
    return [*(known or _RUNNABLE_EXTENSIONS), *exact]


def _directories(program: str, workdir: str, environment: Mapping[str, str]) -> Iterator[str]:
    if ntpath.dirname(program) or ntpath.splitdrive(program)[0]:
        yield workdir
        return
    for directory in environment.get("PATH", "").split(";"):
        bare = directory.strip().strip('"')
        if bare:
            yield ntpath.join(workdir, bare)


def _checked(what: str, text: str, maximum: int, whose: str) -> str:
    length = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if length > maximum:
        raise PlanRefused(f"{what} has {length} characters, at most {maximum} fit ({whose})")
    return text
