"""How well the maps of a detector find defects that are marked by masks or boxes."""
