"""Command lines for Windows are pure, and tried here on any system."""

from __future__ import annotations

import ntpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.jobs.errors import PlanRefused
from hostler_agent.jobs.windows import quoting

CMD = r"C:\Windows\System32\cmd.exe"
PROGRAM = r"C:\tools\x.exe"


def split(line: str) -> list[str]:
    """What Microsoft's C runtime makes of a command line, after the program's own name."""
    words: list[str] = []
    rest = line[line.index('"', 1) + 1 :]
    word, quoted, started, index = "", False, False, 0
    while index < len(rest):
        slashes = len(rest[index:]) - len(rest[index:].lstrip("\\"))
        index += slashes
        if index < len(rest) and rest[index] == '"':
            word += "\\" * (slashes // 2)
            started = True
            if slashes % 2:
                word += '"'
            elif quoted and rest[index + 1 : index + 2] == '"':
                word += '"'
                index += 1
            else:
                quoted = not quoted
            index += 1
            continue
        word += "\\" * slashes
        started = started or slashes > 0
        if index < len(rest):
            if rest[index] in " \t" and not quoted:
                if started:
                    words.append(word)
                word, started = "", False
            else:
                word += rest[index]
                started = True
            index += 1
    return [*words, word] if started else words


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_program_gets_its_arguments_as_they_are(arguments: list[str]) -> None:
    assert split(quoting.program_line(PROGRAM, tuple(arguments))) == arguments


def test_a_string_is_the_shells_business() -> None:
    line = quoting.shell_line(CMD, 'echo "a b" & exit 3')
    assert line == f'"{CMD}" /d /s /c "echo "a b" & exit 3"'


@pytest.mark.parametrize("command", ["echo a\necho b", "echo a\r\necho b", "echo a\r"])
def test_a_string_of_several_lines_is_refused(command: str) -> None:
    """cmd.exe runs the first line and reports success for all."""
    with pytest.raises(PlanRefused, match="several lines"):
        quoting.shell_line(CMD, command)


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("a b", '"a b"'),
        ("x&calc", '"x&calc"'),
        ("a^b", '"a^b"'),
        ("a|b>c<d", '"a|b>c<d"'),
        ('"', '""""'),
        ('a" & calc & "', '"a"" & calc & """'),
        ('a\\"b', '"a\\\\""b"'),
        ("dir\\", '"dir\\\\"'),
        ("%PATH%", '"%%cd:~,%PATH%%cd:~,%"'),
        ("a!b", '"a!b"'),
        ("é", "é"),
        ("\u3000", '"\u3000"'),
        ("a,b;c=d", '"a,b;c=d"'),
    ],
)
def test_a_batch_file_s_arguments_are_harmless(argument: str, quoted: str) -> None:
    """BatBadBut (CVE-2024-24576): the forms of Rust's standard library."""
    line = quoting.batch_line(CMD, r"C:\b.bat", (argument,))
    assert line == f'"{CMD}" /e:on /v:off /d /s /c ""C:\\b.bat" {quoted}"'


@given(st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])))
def test_no_argument_leaves_its_quotes(argument: str) -> None:
    """cmd.exe counts quotes: an operator that follows an even number of them would be executed."""
    line = quoting.batch_line(CMD, r"C:\b.bat", (argument,))
    inner = line[line.index('/c "') + 4 : -1]
    quotes = 0
    for character in inner:
        quotes += character == '"'
        assert quotes % 2 or character not in "&|<>^()"
    assert quotes % 2 == 0


@pytest.mark.parametrize("argument", ["a\nb", "a\rb"])
def test_a_batch_file_s_arguments_have_one_line(argument: str) -> None:
    with pytest.raises(PlanRefused, match="argument 2 of a batch file"):
        quoting.batch_line(CMD, r"C:\b.bat", ("x", argument))


def test_a_batch_file_s_name_is_not_expanded() -> None:
    with pytest.raises(PlanRefused, match="% sign"):
        quoting.batch_line(CMD, r"C:\%x%.bat", ())


def test_what_does_not_fit_is_refused_with_its_size() -> None:
    """E13"""
    room = quoting.MAX_COMMAND_LINE - 1 - len(f'"{PROGRAM}" ')
    assert len(quoting.program_line(PROGRAM, ("x" * room,))) == 32_766
    with pytest.raises(PlanRefused, match="has 32767 characters, at most 32766 fit"):
        quoting.program_line(PROGRAM, ("x" * (room + 1),))
    # Windows counts UTF-16 units: this character takes two.
    with pytest.raises(PlanRefused, match="has 32767 characters"):
        quoting.program_line(PROGRAM, ("x" * (room - 1) + "\U0001f600",))
    shell_room = quoting.MAX_SHELL_LINE - len(quoting.shell_line(CMD, ""))
    assert len(quoting.shell_line(CMD, "x" * shell_room)) == 8_191
    with pytest.raises(PlanRefused, match=r"has 8192 characters, at most 8191 fit \(cmd.exe\)"):
        quoting.shell_line(CMD, "x" * (shell_room + 1))


def test_the_environment_is_sorted_and_ended() -> None:
    assert quoting.environment_block({"b": "2", "A": "1", "C": ""}) == "A=1\0b=2\0C=\0\0"
    assert quoting.environment_block({}) == "\0"


def test_a_variable_that_does_not_fit_is_refused() -> None:
    """E13"""
    quoting.environment_block({"A": "x" * 32_764})
    with pytest.raises(PlanRefused, match="variable 'A' has 32767 characters, at most 32766"):
        quoting.environment_block({"A": "x" * 32_765})


def test_one_name_in_two_spellings_is_refused() -> None:
    with pytest.raises(PlanRefused, match="'Path' is there twice"):
        quoting.environment_block({"PATH": "a", "Path": "b"})


class Disk:
    """Files by name; Windows ignores case."""

    def __init__(self, *paths: str) -> None:
        self.paths = {path.lower() for path in paths}

    def __call__(self, path: str) -> bool:
        return ntpath.normpath(path).lower() in self.paths


ENVIRONMENT = {"PATH": r'C:\first;"C:\my tools";;relative', "PATHEXT": ".COM;.EXE;.BAT;.CMD;.JS"}


@pytest.mark.parametrize(
    ("program", "files", "found"),
    [
        ("tool", [r"C:\first\tool.exe"], r"C:\first\tool.exe"),
        ("tool", [r"C:\my tools\tool.cmd", r"C:\work\tool.exe"], r"C:\my tools\tool.cmd"),
        ("tool", [r"C:\first\tool.bat", r"C:\first\tool.exe"], r"C:\first\tool.exe"),
        ("tool.exe", [r"C:\first\tool.exe.exe"], None),
        ("tool.js", [r"C:\first\tool.js"], r"C:\first\tool.js"),
        ("python3.11", [r"C:\first\python3.11.exe"], r"C:\first\python3.11.exe"),
        ("tool", [r"C:\first\tool"], None),
        ("tool", [r"C:\work\relative\tool.exe"], r"C:\work\relative\tool.exe"),
        ("bin\\tool", [r"C:\work\bin\tool.exe"], r"C:\work\bin\tool.exe"),
        ("bin/tool", [r"C:\work\bin\tool.exe"], r"C:\work\bin\tool.exe"),
        (r".\tool", [r"C:\work\tool.exe"], r"C:\work\tool.exe"),
        (r"D:\tool.exe", [r"D:\tool.exe"], r"D:\tool.exe"),
    ],
)
def test_programs_are_found_by_the_jobs_own_path(
    program: str, files: list[str], found: str | None
) -> None:
    """Never in the working directory, nor in the agent's: a build must not lend us its programs."""
    assert quoting.find_program(program, r"C:\work", ENVIRONMENT, Disk(*files)) == found


@pytest.mark.parametrize(
    "program", ["b.bat.", "b.bat ", "b.bat. .", "b.bat::$DATA", r"C:\b.exe:x", 'b"x.exe']
)
def test_names_that_are_not_what_they_look_like_are_refused(program: str) -> None:
    """CVE-2024-43402: Windows runs `x.bat.` as a batch file."""
    with pytest.raises(PlanRefused, match="the program's name"):
        quoting.find_program(program, r"C:\work", ENVIRONMENT, lambda _path: True)


@pytest.mark.parametrize("path", [r"C:\b.bat", r"C:\B.CMD"])
def test_batch_files_are_known_by_their_extension(path: str) -> None:
    assert quoting.is_batch(path)
    assert not quoting.is_batch(path + ".exe")
