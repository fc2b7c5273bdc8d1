"""Where an answer would teach most, and how the model's suggestion is put to a person."""
