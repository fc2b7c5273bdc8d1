"""Label Studio's language: its labeling setup, its JSON, its API and its images."""
