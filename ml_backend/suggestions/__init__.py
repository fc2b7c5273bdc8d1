"""What goes back to people: masks and questions, answered, pushed, drawn."""
