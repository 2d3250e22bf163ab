"""Files for other tools and for people; nothing here imports torch."""
