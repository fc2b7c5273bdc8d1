"""What Brushloop remembers: rows in SQLite or PostgreSQL, and files in one folder. SQL lives only here."""
