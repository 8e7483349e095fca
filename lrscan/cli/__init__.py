"""The command line."""

from lrscan.cli.commands import main as main
