"""The broker of zloom: a hub process that no trainer ever imports."""
