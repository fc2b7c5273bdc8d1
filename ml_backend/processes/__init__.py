"""What processes and threads share: places, patience, priorities, names, unfinished files."""
