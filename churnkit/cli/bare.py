"""Groups of commands of which one may be called by the group's name alone."""

from __future__ import annotations

from typing import Any

import typer


class Bare(typer.core.TyperGroup):
    """`churnkit GROUP ...` is the command `bare`, unless it names one of the others."""

    bare = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the bare command's name before the words where none is given."""
        known = {*self.commands, *self.get_help_option_names(ctx)}
        return super().parse_args(ctx, args if args and args[0] in known else [self.bare, *args])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Shows the bare command's options, then the other commands."""
        self.commands[self.bare].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
