"""`python -m lrscan` is `lrscan`."""

from lrscan.cli import main

main(prog_name="lrscan")
