"""What is known of a project, for people and programs."""
