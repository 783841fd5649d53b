"""What the commands are made of: groups that import a command when it is called, options that take several values."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and the place it is imported from.

    Args:
        place: ``package.module:function``, or ``package.module:app`` for one with commands of its own.
        help: the first sentence of its docstring, so that the list of commands imports none of them.
    """

    name: str
    place: str
    help: str

    def load(self) -> Any:
        """Import it.

        Raises:
            ImportError: the program is not whole.
        """
        module, _, attribute = self.place.partition(":")
        target = getattr(importlib.import_module(module), attribute)
        # A group of one is made of it, because a group is what gives its members their names.
        parent = typer.Typer(add_completion=False)
        parent.callback()(_nothing)
        if isinstance(target, typer.Typer):
            parent.add_typer(target, name=self.name)
        else:
            parent.command(self.name, cls=Spread)(target)
        group = typer.main.get_command(parent)
        assert isinstance(group, TyperGroup)
        return group.commands[self.name]


def lazy_group(commands: Sequence[Command]) -> type[TyperGroup]:
    """A group that lists these commands and imports the one that is called."""
    by_name = {command.name: command for command in commands}

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands.update({one.name: TyperCommand(one.name, help=one.help) for one in commands})

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            name, command, rest = super().resolve_command(ctx, args)
            return name, by_name[name].load() if name in by_name else command, rest

    return LazyGroup


def _nothing() -> None:
    """What a group does before its command."""


class Spread(TyperCommand):
    """Lets options that may be repeated take several values: ``--candles A B`` is ``--candles A --candles B``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        repeated = {
            name
            for parameter in self.params
            if isinstance(parameter, TyperOption) and parameter.multiple
            for name in parameter.opts
        }
        spread: list[str] = []
        current = ""
        for number, word in enumerate(args):
            if word.startswith("-"):
                current = word if word in repeated else ""
            elif current and args[number - 1] != current:
                spread.append(current)
            spread.append(word)
        return super().parse_args(ctx, spread)
