"""Command line of lrscan."""

from lrscan.cli.commands import main as main
