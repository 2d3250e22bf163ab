"""The page of `contextseg review`: look at what was found, name, merge, hide and correct it; works from files."""
