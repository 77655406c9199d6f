"""`lco completion SHELL`: a script for the shell, made of the parsers themselves."""

from argparse import Action, ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Iterator
from dataclasses import dataclass, field

from api.cli import make_parser

_FILE_METAVARS = frozenset({"FILE", "PATH", "RUN_DIR", "OTHER_RUN_DIR", "DIR"})


@dataclass(slots=True)
class Place:
    """What can be typed after some words of a command."""

    words: str
    """The words so far, without `lco`: `keys create`."""
    commands: dict[str, str] = field(default_factory=dict)
    """Name -> its help."""
    options: dict[str, str] = field(default_factory=dict)
    """`--limit` -> its help."""
    values: dict[str, list[str]] = field(default_factory=dict)
    """Option -> what it may be."""
    taking: list[str] = field(default_factory=list)
    """Options that take a value."""
    choices: list[str] = field(default_factory=list)
    """What an argument may be."""
    takes_files: bool = False
    """Whether names of files have a meaning here."""


def completion(options: Namespace) -> int:
    """Prints the script."""
    places = list(places_of(make_parser()))
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](places))
    return 0


def places_of(parser: ArgumentParser, words: str = "") -> Iterator[Place]:
    """Every place of a command line, from the top."""
    place = Place(words)
    children: dict[str, ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            children = dict(action.choices)
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            place.commands = {name: helps.get(name, "") for name in children}
        elif action.option_strings:
            _add_option(place, action)
        else:
            place.choices += map(str, action.choices or ())
            place.takes_files |= _names_file(action)
    # A stage without the platform has a parser of its own: all that is known here is that it takes files.
    place.takes_files |= "run" not in parser._defaults and not children
    yield place
    for name, child in children.items():
        yield from places_of(child, f"{words} {name}".strip())


def _add_option(place: Place, action: Action) -> None:
    for name in action.option_strings:
        place.options[name] = "" if action.help is None else action.help.replace("%%", "%")
        if action.nargs == 0:
            continue
        place.taking.append(name)
        if action.choices is not None:
            place.values[name] = list(map(str, action.choices))
        elif not _names_file(action):
            place.values[name] = []


def _names_file(action: Action) -> bool:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    return metavar in _FILE_METAVARS or action.dest in ("file", "directory", "target")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_SHARED = """    local place='' prev='' word i
    for (( i = {first}; i < {current}; i++ )); do
        word=${{{words}[i]}}
        prev=$word
        case "${{place:+$place }}$word" in
            {paths}) place="${{place:+$place }}$word" ;;
        esac
    done
"""


def _walk(places: list[Place], first: int, words: str, current: str) -> str:
    """The lines that find out how far a command line is; the same in bash and zsh."""
    paths = "|".join(_quoted(place.words) for place in places if place.words)
    return _SHARED.format(first=first, current=current, words=words, paths=paths)


def bash(places: list[Place]) -> str:
    """The script for bash."""
    lines = ["# lco completion bash", "_lco() {", _walk(places, 1, "COMP_WORDS", "COMP_CWORD").rstrip()]
    lines += ["    local cur=${COMP_WORDS[COMP_CWORD]} words='' files=''", '    case "$place:$prev" in']
    for place in places:
        for option in place.taking:
            given = place.values.get(option)
            fill = "compgen -f" if given is None else f"compgen -W {_quoted(' '.join(given))}"
            lines.append(
                f'        {_quoted(f"{place.words}:{option}")}) mapfile -t COMPREPLY < <({fill} -- "$cur"); return ;;'
            )
    lines += ["    esac", '    case "$place" in']
    for place in places:
        known = " ".join([*place.commands, *place.choices, *place.options])
        files = "; files=yes" if place.takes_files else ""
        lines.append(f"        {_quoted(place.words)}) words={_quoted(known)}{files} ;;")
    lines += [
        "    esac",
        """    mapfile -t COMPREPLY < <(
        compgen -W "$words" -- "$cur"
        if [[ $files && $cur != -* ]]; then compgen -f -- "$cur"; fi
    )""",
        "}",
    ]
    lines += ["complete -o filenames -F _lco lco"]
    return "\n".join(lines)


def zsh(places: list[Place]) -> str:
    """The script for zsh."""
    lines = ["#compdef lco", "_lco() {", "    setopt localoptions ksharrays"]
    lines += [_walk(places, 1, "words", "CURRENT - 1").rstrip(), "    local -a found", '    case "$place:$prev" in']
    for place in places:
        for option in place.taking:
            given = place.values.get(option)
            fill = "_files" if given is None else f"compadd -- {' '.join(map(_quoted, given))}" if given else ":"
            lines.append(f"        {_quoted(f'{place.words}:{option}')}) {fill}; return ;;")
    lines += ["    esac", '    case "$place" in']
    for place in places:
        told = {**place.commands, **dict.fromkeys(place.choices, ""), **place.options}
        found = " ".join(_quoted(f"{name}:{text}" if text else name) for name, text in told.items())
        lines.append(f"        {_quoted(place.words)}) found=({found}){'; _files' if place.takes_files else ''} ;;")
    lines += ["    esac", "    _describe 'lco' found", "}"]
    lines += ["if [[ ${funcstack[1]} == _lco ]]; then _lco; else compdef _lco lco; fi"]
    return "\n".join(lines)


def fish(places: list[Place]) -> str:
    """The script for fish."""
    paths = " ".join(_fish(place.words) for place in places if place.words)
    lines = [
        "# lco completion fish",
        "function __lco_path",
        "    set -l path ''",
        "    for word in (commandline -opc)[2..-1]",
        '        set -l next (string trim -- "$path $word")',
        f'        contains -- "$next" {paths}; and set path "$next"',
        "    end",
        '    echo "$path"',
        "end",
        "function __lco_at",
        "    set -l path (__lco_path)",
        '    test "$path" = "$argv"',
        "end",
        "complete -c lco -f",
    ]
    for place in places:
        here = f'complete -c lco -n "__lco_at {_fish(place.words)}"'
        lines += [f"{here} -a {_fish(name)} -d {_fish(text)}" for name, text in place.commands.items()]
        lines += [f"{here} -a {_fish(name)}" for name in place.choices]
        for name, text in place.options.items():
            flag = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            given = place.values.get(name)
            taking = (
                "" if name not in place.taking else " -r -F" if given is None else f" -x -a {_fish(' '.join(given))}"
            )
            lines.append(f"{here} {flag}{taking} -d {_fish(text)}")
        if place.takes_files:
            lines.append(f"{here} -F")
    return "\n".join(lines)


def _fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
