"""`python -m lrscan` is `lrscan`."""

from lrscan.cli.commands import main

main(prog_name="lrscan")
