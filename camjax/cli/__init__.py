"""The command line: `camjax`, with one file per command."""
