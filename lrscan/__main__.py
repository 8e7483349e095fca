"""Entry point: ``python -m lrscan`` does the same as the command ``lrscan``."""

from lrscan.cli.commands import main

main(prog_name="lrscan")
