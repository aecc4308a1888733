"""`deploykit nodes`: which nodes there are, and which a selection chooses."""

from __future__ import annotations

import click

from deploykit.cli.nodetest import node_test_options, run_test
from deploykit.cli.options import json_option
from deploykit.cli.selecting import selection_options


@click.command()
@selection_options
@node_test_options
@json_option
@click.pass_context
def nodes(ctx: click.Context, /, test: bool, as_json: bool, **given: object) -> None:
    """Try a selection on a node that is described by files. Contacts nobody, and needs no settings.

    Ends with 0 when the node matches, 1 when it does not, 2 when the selection is none.

    \b
    Example:
      deploykit nodes --test -S 'nginx and env=live' --identity web1 --facts facts.json --classes classes.txt
    """
    from deploykit.errors import UsageError

    if not test:
        raise UsageError("nodes cannot be asked yet", "--test tries a selection")
    ctx.exit(run_test(given, as_json=as_json))
