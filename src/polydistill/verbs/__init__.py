"""One verb of the command line per file. Everything heavy is imported when a verb runs, so that ``--help`` is quick."""
