"""How the shipped base weights were made, from drawn images."""
