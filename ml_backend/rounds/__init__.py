"""The life of a round: its lease, its process, and how its outcome becomes known."""
