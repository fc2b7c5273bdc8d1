"""The way out: results, models and tables as the files of other tools, from arrays alone."""
