"""The `ryvion-node` command: one small module per subcommand, imported only when it is the one that runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit. An error the operator can mend is one message on stderr, never a traceback."""
    # Imported here, so that `import ryvion_node.cli` alone costs nothing.
    from ryvion_node.cli.app import cli
    from ryvion_node.errors import OperatorError

    try:
        cli.main(prog_name="ryvion-node")
    except OperatorError as error:
        sys.stderr.write(f"ryvion-node: {error}\n")
        sys.exit(error.exit_code)
